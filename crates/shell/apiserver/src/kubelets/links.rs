//! Links of a proxied page: addresses on the host behind the proxy are made to lead through the proxy again.

/// Longest start tag that is looked into; a longer one passes as it is.
const TAG_BYTES_MAX: usize = 64 * 1024;

/// Elements whose content holds no tags.
const RAW: [&str; 4] = ["script", "style", "textarea", "title"];

/// Attributes that hold addresses, by element.
const ATTRIBUTES: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where a page came from, as far as its links tell.
#[derive(Clone, Debug)]
pub struct Links {
    /// The path of the proxy, which leads to the root of the host behind it; without a slash at its end.
    pub prefix: String,
    /// Names of the host: the address behind the proxy, and what the client calls the proxy.
    pub hosts: Vec<String>,
}

impl Links {
    /// The address through the proxy; `None` where the given one is right as it is.
    pub fn rewrite(&self, address: &str) -> Option<String> {
        let start = address.trim_start();
        let path = match start.find(':') {
            Some(at) if start[..at].eq_ignore_ascii_case("http") || start[..at].eq_ignore_ascii_case("https") => {
                self.path_of(start[at + 1..].strip_prefix("//")?)?
            }
            _ => match start.strip_prefix("//") {
                Some(rest) => self.path_of(rest)?,
                None => start,
            },
        };
        let inside = path.strip_prefix(&*self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        (path.starts_with('/') && !inside).then(|| format!("{}{path}", self.prefix))
    }

    /// What follows one of the host's names.
    fn path_of<'a>(&self, text: &'a str) -> Option<&'a str> {
        let (host, path) = text.split_at(text.find(['/', '?', '#']).unwrap_or(text.len()));
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)).then_some(if path.is_empty() { "/" } else { path })
    }
}

#[derive(Clone, Copy, Debug)]
enum Within {
    Text,
    Comment,
    /// An element whose content holds no tags.
    Raw(&'static str),
}

/// Rewrites a page piece by piece; what cannot be judged yet is kept until the next piece.
#[derive(Debug)]
pub struct Rewriter {
    links: Links,
    held: Vec<u8>,
    within: Within,
}

impl Rewriter {
    pub fn new(links: Links) -> Self {
        Self { links, held: Vec::new(), within: Within::Text }
    }

    /// Takes the next piece and answers what is ready.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::with_capacity(held.len() + self.links.prefix.len());
        let mut rest = held.as_slice();
        while !rest.is_empty() {
            let (ready, more) = match self.within {
                Within::Text => self.text(rest, &mut out),
                Within::Comment => self.until(rest, b"-->", &mut out),
                Within::Raw(name) => self.until(rest, format!("</{name}").as_bytes(), &mut out),
            };
            rest = &rest[ready..];
            if !more {
                break;
            }
        }
        self.held = rest.to_vec();
        out
    }

    /// What was kept when the page ended.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Text up to and with the next tag; answers how much of it is done, and whether to go on.
    fn text(&mut self, rest: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        let Some(open) = rest.iter().position(|byte| *byte == b'<') else {
            out.extend_from_slice(rest);
            return (rest.len(), false);
        };
        out.extend_from_slice(&rest[..open]);
        let tag = &rest[open..];
        if tag.starts_with(b"<!--") {
            out.extend_from_slice(b"<!--");
            self.within = Within::Comment;
            return (open + 4, true);
        }
        if tag.len() < 4 && b"<!--".starts_with(tag) {
            return (open, false);
        }
        if !tag.get(1).is_some_and(u8::is_ascii_alphabetic) {
            out.push(b'<');
            return (open + 1, true);
        }
        match end_of_tag(tag) {
            Some(end) => {
                let name = rewrite_tag(&self.links, &tag[..end], out);
                if let Some(raw) = RAW.into_iter().find(|raw| *raw == name) {
                    self.within = Within::Raw(raw);
                }
                (open + end, true)
            }
            None if tag.len() > TAG_BYTES_MAX => {
                out.push(b'<');
                (open + 1, true)
            }
            None => (open, false),
        }
    }

    /// Passes everything up to and with a mark, in whatever case.
    fn until(&mut self, rest: &[u8], mark: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        let found = rest.windows(mark.len()).position(|window| window.eq_ignore_ascii_case(mark));
        let (ready, more) = match found {
            Some(at) => {
                self.within = Within::Text;
                (at + mark.len(), true)
            }
            None => (rest.len().saturating_sub(mark.len() - 1), false),
        };
        out.extend_from_slice(&rest[..ready]);
        (ready, more)
    }
}

/// The length of a start tag; `None` where its end has not come yet.
fn end_of_tag(tag: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, &byte) in tag.iter().enumerate() {
        match quote {
            Some(mark) if byte == mark => quote = None,
            Some(_) => {}
            // A quote opens a value only behind its sign.
            None if matches!(byte, b'"' | b'\'') && tag[..at].trim_ascii_end().ends_with(b"=") => quote = Some(byte),
            None if byte == b'>' => return Some(at + 1),
            None => {}
        }
    }
    None
}

/// Writes a start tag with its addresses rewritten and answers its name.
fn rewrite_tag(links: &Links, tag: &[u8], out: &mut Vec<u8>) -> String {
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>');
    let length = tag[1..].iter().position(is_end).unwrap_or(tag.len() - 1);
    let name = String::from_utf8_lossy(&tag[1..=length]).to_ascii_lowercase();
    let known = ATTRIBUTES.iter().find(|(of, _)| *of == name).map(|(_, attributes)| *attributes).unwrap_or_default();
    let mut done = 0;
    let mut at = length + 1;
    while let Some((attribute, value)) = next_attribute(tag, &mut at) {
        let attribute = String::from_utf8_lossy(&tag[attribute]).to_ascii_lowercase();
        if !known.contains(&attribute.as_str()) {
            continue;
        }
        let address = std::str::from_utf8(&tag[value.clone()]).ok();
        if let Some(new) = address.and_then(|address| links.rewrite(address)) {
            out.extend_from_slice(&tag[done..value.start]);
            out.extend_from_slice(new.as_bytes());
            done = value.end;
        }
    }
    out.extend_from_slice(&tag[done..]);
    name
}

type Range = std::ops::Range<usize>;

/// The places of the next attribute's name and value; an attribute without a value has an empty one.
fn next_attribute(tag: &[u8], at: &mut usize) -> Option<(Range, Range)> {
    let skip = |from: usize, wanted: &dyn Fn(u8) -> bool| {
        tag[from..].iter().position(|byte| !wanted(*byte)).map_or(tag.len(), |n| from + n)
    };
    let start = skip(*at, &|byte| byte.is_ascii_whitespace() || byte == b'/');
    if matches!(tag.get(start), None | Some(b'>')) {
        return None;
    }
    // A sign that opens a name belongs to it.
    let end = skip(start + 1, &|byte| !byte.is_ascii_whitespace() && !matches!(byte, b'=' | b'/' | b'>'));
    let sign = skip(end, &|byte| byte.is_ascii_whitespace());
    if tag.get(sign) != Some(&b'=') {
        *at = end;
        return Some((start..end, end..end));
    }
    let value = skip(sign + 1, &|byte| byte.is_ascii_whitespace());
    let range = match tag.get(value) {
        Some(&quote @ (b'"' | b'\'')) => {
            let close = skip(value + 1, &|byte| byte != quote);
            *at = (close + 1).min(tag.len());
            value + 1..close
        }
        _ => {
            let close = skip(value, &|byte| !byte.is_ascii_whitespace() && byte != b'>');
            *at = close;
            value..close
        }
    };
    Some((start..end, range))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/api/v1/namespaces/a/pods/p:80/proxy";

    fn links() -> Links {
        Links { prefix: PREFIX.into(), hosts: vec!["10.0.0.1:80".into(), "server:6443".into()] }
    }

    #[test]
    fn addresses_on_the_host_lead_through_the_proxy() {
        let cases = [
            ("/x", "@/x"),
            ("/", "@/"),
            ("/a/?b=c#d", "@/a/?b=c#d"),
            ("x/y", "x/y"),
            ("#top", "#top"),
            ("mailto:a", "mailto:a"),
            ("http://10.0.0.1:80/x", "@/x"),
            ("https://server:6443", "@/"),
            ("//10.0.0.1:80/x", "@/x"),
            ("http://elsewhere/x", "http://elsewhere/x"),
            ("//elsewhere/x", "//elsewhere/x"),
            ("@/x", "@/x"),
            ("@er/x", "@@er/x"),
        ];
        for (given, wanted) in cases {
            let [given, wanted] = [given, wanted].map(|text| text.replace('@', PREFIX));
            assert_eq!(links().rewrite(&given).unwrap_or_else(|| given.clone()), wanted, "{given}");
        }
    }

    /// `page => page`, where `@` stands for the proxy's path; each page is read whole and byte by byte.
    const PAGES: &str = r#"
<a href="/x">/x</a> => <a href="@/x">/x</a>
<A class='b' HREF = '/x' id=i> => <A class='b' HREF = '@/x' id=i>
<a href=/x>t</a><img src=/y /> => <a href=@/x>t</a><img src=@/y />
<a title="a > b" href="/x?a=1&amp;b=2"> => <a title="a > b" href="@/x?a=1&amp;b=2">
<p href="/x">1 < 2 <- 3</p> => <p href="/x">1 < 2 <- 3</p>
<!-- <a href="/x"> --><a href="/y"> => <!-- <a href="/x"> --><a href="@/y">
<script src="/s.js">let a = '<a href="/x">';</SCRIPT><a href="/y"> => <script src="@/s.js">let a = '<a href="/x">';</SCRIPT><a href="@/y">
<!DOCTYPE html><html><body background="/b"></body> => <!DOCTYPE html><html><body background="@/b"></body>
<a data-x href="//10.0.0.1:80/x" =y href="rel"> => <a data-x href="@/x" =y href="rel">
<a href="/x => <a href="/x
"#;

    #[test]
    fn pages_are_rewritten_however_they_are_cut() {
        for line in PAGES.lines().filter(|line| !line.is_empty()) {
            let (page, wanted) = line.split_once(" => ").unwrap();
            for size in [1, 7, page.len()] {
                let mut rewriter = Rewriter::new(links());
                let mut got: Vec<u8> = page.as_bytes().chunks(size).flat_map(|piece| rewriter.push(piece)).collect();
                got.extend(rewriter.finish());
                assert_eq!(String::from_utf8(got).unwrap(), wanted.replace('@', PREFIX), "{size}");
            }
        }
    }

    #[test]
    fn a_tag_without_end_is_not_kept() {
        let mut rewriter = Rewriter::new(links());
        let page = [b"<a href=\"".as_slice(), &vec![b'x'; TAG_BYTES_MAX + 1]].concat();
        assert_eq!(rewriter.push(&page), page);
    }
}
