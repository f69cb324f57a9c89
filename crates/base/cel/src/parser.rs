//! Tokens into expressions, by precedence; macros are recognised on the way.

use crate::ast::{Expr, Kind, Literal, Mistake};
use crate::lexer::{Token, tokens};
use crate::{DEPTH_MAX, EXPRESSION_BYTES_MAX, macros};

const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
/// Operators with their functions; a higher number binds more tightly.
const OPERATORS: [(&str, &str, usize); 14] = [
    ("||", "_||_", 0),
    ("&&", "_&&_", 1),
    ("==", "_==_", 2),
    ("!=", "_!=_", 2),
    ("<=", "_<=_", 2),
    (">=", "_>=_", 2),
    ("<", "_<_", 2),
    (">", "_>_", 2),
    ("in", "@in", 2),
    ("+", "_+_", 3),
    ("-", "_-_", 3),
    ("*", "_*_", 4),
    ("/", "_/_", 4),
    ("%", "_%_", 4),
];
/// What may begin a value, as upstream's parser lists it.
const VALUES: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
/// Functions whose names have a dot.
const QUALIFIED: [(&str, &[&str]); 7] = [
    ("sets", &["contains", "equivalent", "intersects"]),
    ("strings", &["quote"]),
    ("lists", &["range"]),
    ("jsonpatch", &["escapeKey"]),
    ("optional", &["of", "none", "ofNonZeroValue"]),
    ("ip", &["isCanonical"]),
    (
        "format",
        &[
            "named",
            "dns1123Label",
            "dns1123Subdomain",
            "dns1035Label",
            "qualifiedName",
            "dns1123LabelPrefix",
            "dns1123SubdomainPrefix",
            "dns1035LabelPrefix",
            "labelValue",
            "uri",
            "uuid",
            "byte",
            "date",
            "datetime",
        ],
    ),
];

pub fn parse(text: &str) -> Result<Expr, Mistake> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let why =
            format!("expression code point size exceeds limit: size: {}, limit {EXPRESSION_BYTES_MAX}", text.len());
        return Err(Mistake { at: 0, why });
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected("extraneous input", "<EOF>")),
    }
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
}

type Parsed = Result<Expr, Mistake>;

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at.min(self.tokens.len() - 1)].0
    }

    fn place(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].1
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), Mistake> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected("mismatched input", &format!("'{sign}'"))) }
    }

    fn unexpected(&self, what: &str, expected: &str) -> Mistake {
        let found = match self.peek() {
            Token::End => "<EOF>".to_owned(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::Ident(name) => name.clone(),
            Token::Literal(Literal::String(text)) => format!("{text:?}"),
            Token::Literal(Literal::Int(number)) => number.to_string(),
            Token::Literal(Literal::Uint(number)) => format!("{number}u"),
            Token::Literal(Literal::Double(number)) => number.to_string(),
            Token::Literal(Literal::Bool(flag)) => flag.to_string(),
            Token::Literal(_) => "null".to_owned(),
        };
        Mistake { at: self.place(), why: format!("Syntax error: {what} '{found}' expecting {expected}") }
    }

    fn deeper(&mut self) -> Result<(), Mistake> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let why = format!("expression recursion limit exceeded: {DEPTH_MAX}");
            return Err(Mistake { at: self.place(), why });
        }
        Ok(())
    }

    fn expr(&mut self) -> Parsed {
        self.deeper()?;
        let condition = self.binary(0)?;
        let at = self.place();
        let expr = if self.take("?") {
            let yes = self.binary(0)?;
            self.expect(":")?;
            let no = self.expr()?;
            call(at, "_?_:_", vec![condition, yes, no])
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// Operators that bind at least as tightly as `level`, by precedence climbing.
    fn binary(&mut self, level: usize) -> Parsed {
        let mut left = self.unary()?;
        while let Some((sign, name, own)) = OPERATORS.iter().find(|(sign, _, own)| *own >= level && self.is(sign)) {
            let at = self.place();
            self.take(sign);
            let right = self.binary(own + 1)?;
            left = call(at, name, vec![left, right]);
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let at = self.place();
        if self.take("!") {
            self.deeper()?;
            let inner = self.unary()?;
            self.depth -= 1;
            return Ok(call(at, "!_", vec![inner]));
        }
        if self.take("-") {
            let number = match self.peek() {
                Token::Literal(Literal::Int(number)) => Some(Literal::Int(number.wrapping_neg())),
                Token::Literal(Literal::Double(number)) => Some(Literal::Double(-number)),
                _ => None,
            };
            if let Some(number) = number {
                self.at += 1;
                return self.members(Expr { at, kind: Kind::Literal(number) });
            }
            self.deeper()?;
            let inner = self.unary()?;
            self.depth -= 1;
            return Ok(call(at, "-_", vec![inner]));
        }
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut of: Expr) -> Parsed {
        loop {
            let at = self.place();
            if self.take(".") {
                let optional = self.take("?");
                let Token::Ident(field) = self.peek().clone() else {
                    return Err(self.unexpected("no viable alternative at input", "IDENTIFIER"));
                };
                self.at += 1;
                of = if !optional && self.is("(") {
                    let at = self.place();
                    let args = self.arguments()?;
                    method(at, of, field, args)?
                } else if let Some(name) = self.type_name(&of, &field) {
                    self.fields(at, name)?
                } else {
                    Expr { at, kind: Kind::Select { of: Box::new(of), field, test: false, optional } }
                };
            } else if self.take("[") {
                let name = if self.take("?") { "_[?_]" } else { "_[_]" };
                let index = self.expr()?;
                self.expect("]")?;
                of = call(at, name, vec![of, index]);
            } else {
                return Ok(of);
            }
        }
    }

    /// `Object.spec` before a brace is the name of a type.
    fn type_name(&self, of: &Expr, field: &str) -> Option<String> {
        if !self.is("{") {
            return None;
        }
        let mut parts = vec![field.to_owned()];
        let mut of = of;
        loop {
            match &of.kind {
                Kind::Ident(name) => {
                    parts.push(name.clone());
                    parts.reverse();
                    return Some(parts.join("."));
                }
                Kind::Select { of: inner, field, test: false, optional: false } => {
                    parts.push(field.clone());
                    of = inner;
                }
                _ => return None,
            }
        }
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, Mistake> {
        self.expect("(")?;
        let mut args = Vec::new();
        while !self.is(")") {
            args.push(self.expr()?);
            if !self.take(",") {
                break;
            }
        }
        self.expect(")")?;
        Ok(args)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.place();
        let token = self.peek().clone();
        match token {
            Token::Literal(literal) => {
                self.at += 1;
                if literal == Literal::Int(i64::MIN) {
                    return Err(Mistake { at, why: "Syntax error: invalid int literal".to_owned() });
                }
                Ok(Expr { at, kind: Kind::Literal(literal) })
            }
            Token::Sign("(") => {
                self.at += 1;
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => self.list(at),
            Token::Sign("{") => self.map(at),
            Token::Sign(".") => {
                self.at += 1;
                self.primary()
            }
            Token::Ident(name) => {
                self.at += 1;
                if RESERVED.contains(&name.as_str()) {
                    return Err(Mistake { at, why: format!("reserved identifier: {name}") });
                }
                if self.is("(") {
                    let at = self.place();
                    let args = self.arguments()?;
                    return function(at, name, args);
                }
                if self.is("{") {
                    return self.fields(at, name);
                }
                Ok(Expr { at, kind: Kind::Ident(name) })
            }
            _ => Err(self.unexpected("mismatched input", VALUES)),
        }
    }

    fn list(&mut self, at: usize) -> Parsed {
        self.expect("[")?;
        let mut items = Vec::new();
        while !self.is("]") {
            let optional = self.take("?");
            items.push((self.expr()?, optional));
            if !self.take(",") {
                break;
            }
        }
        self.expect("]")?;
        Ok(Expr { at, kind: Kind::List(items) })
    }

    fn map(&mut self, at: usize) -> Parsed {
        self.expect("{")?;
        let mut entries = Vec::new();
        while !self.is("}") {
            let optional = self.take("?");
            let key = self.expr()?;
            self.expect(":")?;
            entries.push((key, self.expr()?, optional));
            if !self.take(",") {
                break;
            }
        }
        self.expect("}")?;
        Ok(Expr { at, kind: Kind::Map(entries) })
    }

    fn fields(&mut self, at: usize, name: String) -> Parsed {
        self.expect("{")?;
        let mut fields = Vec::new();
        while !self.is("}") {
            let optional = self.take("?");
            let Token::Ident(field) = self.peek().clone() else {
                return Err(self.unexpected("mismatched input", "IDENTIFIER"));
            };
            self.at += 1;
            self.expect(":")?;
            fields.push((field, self.expr()?, optional));
            if !self.take(",") {
                break;
            }
        }
        self.expect("}")?;
        Ok(Expr { at, kind: Kind::Struct(name, fields) })
    }
}

fn call(at: usize, name: &str, args: Vec<Expr>) -> Expr {
    Expr { at, kind: Kind::Call { name: name.to_owned(), target: None, args } }
}

fn function(at: usize, name: String, mut args: Vec<Expr>) -> Parsed {
    if name == "has" && args.len() == 1 {
        let arg = args.remove(0);
        return match arg.kind {
            Kind::Select { of, field, test: false, optional: false } => {
                Ok(Expr { at, kind: Kind::Select { of, field, test: true, optional: false } })
            }
            _ => Err(Mistake { at: arg.at, why: "invalid argument to has() macro".to_owned() }),
        };
    }
    Ok(Expr { at, kind: Kind::Call { name, target: None, args } })
}

fn method(at: usize, of: Expr, name: String, args: Vec<Expr>) -> Parsed {
    if let Kind::Ident(space) = &of.kind
        && QUALIFIED.iter().any(|(known, names)| known == space && names.contains(&name.as_str()))
    {
        let name = format!("{space}.{name}");
        return Ok(Expr { at, kind: Kind::Call { name, target: None, args } });
    }
    macros::expand(at, of, name, args)
}
