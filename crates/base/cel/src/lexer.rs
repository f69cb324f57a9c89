//! Text into tokens.

use crate::ast::{Literal, Mistake};

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Literal(Literal),
    Ident(String),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// Longest first.
const SIGNS: [&str; 26] = [
    "&&", "||", "==", "!=", "<=", ">=", "?", ":", "<", ">", "+", "-", "*", "/", "%", "!", "(", ")", "[", "]", "{", "}",
    ".", ",", "=", ";",
];

/// Tokens with the places of their first characters; the last is the end.
pub fn tokens(text: &str) -> Result<Vec<(Token, usize)>, Mistake> {
    let chars: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        found.push((token, at));
        if end {
            return Ok(found);
        }
    }
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn skip_blank(&mut self) {
        loop {
            while self.at < self.chars.len() && self.peek(0).is_whitespace() {
                self.at += 1;
            }
            if !(self.peek(0) == '/' && self.peek(1) == '/') {
                return;
            }
            while self.at < self.chars.len() && self.peek(0) != '\n' {
                self.at += 1;
            }
        }
    }

    fn token(&mut self) -> Result<Token, Mistake> {
        let first = self.peek(0);
        if self.at >= self.chars.len() {
            return Ok(Token::End);
        }
        if let Some(prefix) = self.string_prefix() {
            return self.string(prefix);
        }
        if first.is_ascii_digit() || first == '.' && self.peek(1).is_ascii_digit() {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let start = self.at;
            while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
                self.at += 1;
            }
            return Ok(word(self.chars[start..self.at].iter().collect()));
        }
        for sign in SIGNS {
            if sign.chars().enumerate().all(|(at, c)| self.peek(at) == c) {
                self.at += sign.len();
                return Ok(Token::Sign(sign));
            }
        }
        Err(Mistake { at: self.at, why: format!("Syntax error: token recognition error at: '{first}'") })
    }

    /// How many characters before the quote say what kind of string it is.
    fn string_prefix(&self) -> Option<usize> {
        let is_quote = |c: char| c == '"' || c == '\'';
        let is_prefix = |c: char| matches!(c, 'r' | 'R' | 'b' | 'B');
        match (self.peek(0), self.peek(1), self.peek(2)) {
            (a, _, _) if is_quote(a) => Some(0),
            (a, b, _) if is_prefix(a) && is_quote(b) => Some(1),
            (a, b, c) if is_prefix(a) && is_prefix(b) && !a.eq_ignore_ascii_case(&b) && is_quote(c) => Some(2),
            _ => None,
        }
    }

    fn string(&mut self, prefix: usize) -> Result<Token, Mistake> {
        let start = self.at;
        let letters: String = self.chars[start..start + prefix].iter().collect::<String>().to_lowercase();
        let (raw, bytes) = (letters.contains('r'), letters.contains('b'));
        self.at += prefix;
        let quote = self.peek(0);
        let width = if self.peek(1) == quote && self.peek(2) == quote { 3 } else { 1 };
        self.at += width;
        let mut text = Vec::new();
        loop {
            if self.at >= self.chars.len() || width == 1 && self.peek(0) == '\n' {
                let rest: String = self.chars[start..].iter().collect();
                return Err(Mistake { at: start, why: format!("Syntax error: token recognition error at: '{rest}'") });
            }
            if (0..width).all(|ahead| self.peek(ahead) == quote) {
                self.at += width;
                break;
            }
            let c = self.peek(0);
            self.at += 1;
            if c == '\\' && !raw {
                self.escape(bytes, &mut text)?;
            } else {
                text.extend(c.to_string().bytes());
            }
        }
        if bytes {
            return Ok(Token::Literal(Literal::Bytes(text)));
        }
        let text = String::from_utf8(text);
        let text = text.map_err(|_| Mistake { at: start, why: "Syntax error: invalid UTF-8 string".to_owned() })?;
        Ok(Token::Literal(Literal::String(text)))
    }

    fn escape(&mut self, bytes: bool, text: &mut Vec<u8>) -> Result<(), Mistake> {
        let at = self.at;
        let wrong = || Mistake { at, why: "Syntax error: unable to unescape string".to_owned() };
        let c = self.peek(0);
        self.at += 1;
        let plain = match c {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '?' | '"' | '\'' | '`' => c,
            'x' | 'X' => return self.code(2, 16, bytes, text).ok_or_else(wrong),
            'u' if !bytes => return self.code(4, 16, false, text).ok_or_else(wrong),
            'U' if !bytes => return self.code(8, 16, false, text).ok_or_else(wrong),
            '0'..='3' => {
                self.at -= 1;
                return self.code(3, 8, bytes, text).ok_or_else(wrong);
            }
            _ => return Err(wrong()),
        };
        text.extend(plain.to_string().bytes());
        Ok(())
    }

    fn code(&mut self, digits: usize, radix: u32, byte: bool, text: &mut Vec<u8>) -> Option<()> {
        let shown: String = self.chars.get(self.at..self.at + digits)?.iter().collect();
        self.at += digits;
        let number = u32::from_str_radix(&shown, radix).ok()?;
        if byte {
            text.push(u8::try_from(number).ok()?);
        } else {
            text.extend(char::from_u32(number)?.to_string().bytes());
        }
        Some(())
    }

    fn number(&mut self) -> Result<Token, Mistake> {
        let start = self.at;
        let wrong = |what: &str| Mistake { at: start, why: format!("Syntax error: invalid {what} literal") };
        if self.peek(0) == '0' && matches!(self.peek(1), 'x' | 'X') {
            self.at += 2;
            let digits = self.digits(|c| c.is_ascii_hexdigit());
            let number = u64::from_str_radix(&digits, 16).map_err(|_| wrong("int"))?;
            return self.whole(number).ok_or_else(|| wrong("int"));
        }
        let mut text = self.digits(|c| c.is_ascii_digit());
        let mut is_float = false;
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            is_float = true;
            self.at += 1;
            text = format!("{text}.{}", self.digits(|c| c.is_ascii_digit()));
        }
        let sign = usize::from(matches!(self.peek(1), '+' | '-'));
        if matches!(self.peek(0), 'e' | 'E') && self.peek(1 + sign).is_ascii_digit() {
            is_float = true;
            let sign = if sign == 1 && self.peek(1) == '-' { "-" } else { "" };
            self.at += 1 + usize::from(matches!(self.peek(1), '+' | '-'));
            text = format!("{text}e{sign}{}", self.digits(|c| c.is_ascii_digit()));
        }
        if is_float {
            return text.parse().map(|number| Token::Literal(Literal::Double(number))).map_err(|_| wrong("double"));
        }
        let number: u64 = text.parse().map_err(|_| wrong("int"))?;
        self.whole(number).ok_or_else(|| wrong("int"))
    }

    /// A whole number, unsigned where `u` follows. The smallest integer comes out as itself and is negated later.
    fn whole(&mut self, number: u64) -> Option<Token> {
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return Some(Token::Literal(Literal::Uint(number)));
        }
        const SMALLEST: u64 = 1 << 63;
        let number = if number == SMALLEST { i64::MIN } else { i64::try_from(number).ok()? };
        Some(Token::Literal(Literal::Int(number)))
    }

    fn digits(&mut self, allowed: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while allowed(self.peek(0)) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }
}

fn word(text: String) -> Token {
    match text.as_str() {
        "true" => Token::Literal(Literal::Bool(true)),
        "false" => Token::Literal(Literal::Bool(false)),
        "null" => Token::Literal(Literal::Null),
        "in" => Token::Sign("in"),
        _ => Token::Ident(text),
    }
}
