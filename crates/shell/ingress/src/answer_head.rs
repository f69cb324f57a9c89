//! The head of a backend's HTTP/1.1 answer: what it says, where its body ends, and whether its connection stays usable.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use crate::framing::Framing;
use crate::limits::{ANSWER_HEADERS_BYTES_MAX, ANSWER_HEADERS_MAX};

/// Why bytes are not the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    #[error("the answer is no HTTP/1")]
    Syntax,
    #[error("the answer's headers are larger than {ANSWER_HEADERS_BYTES_MAX} bytes, or more than {ANSWER_HEADERS_MAX}")]
    TooLarge,
    #[error("the answer does not say clearly where it ends")]
    Length,
    #[error("the answer changes the protocol, and nobody asked for that")]
    Switch,
}

/// A final answer's head.
#[derive(Debug)]
pub struct Head {
    /// Without what frames the body of this connection only.
    pub answer: Response<()>,
    pub framing: Framing,
    /// After its body the connection takes another request.
    pub persistent: bool,
}

/// Takes the head off the front of `read`; `None` while it is not complete. Interim answers (1xx) are passed over.
pub fn take(read: &mut BytesMut, method: &Method) -> Result<Option<Head>, BadHead> {
    loop {
        let Some((status, minor, headers)) = parse(read)? else {
            return if read.len() < ANSWER_HEADERS_BYTES_MAX { Ok(None) } else { Err(BadHead::TooLarge) };
        };
        match status.as_u16() {
            101 => return Err(BadHead::Switch),
            100..=199 => {}
            _ => return finish(status, minor, headers, method).map(Some),
        }
    }
}

fn parse(read: &mut BytesMut) -> Result<Option<(StatusCode, u8, HeaderMap)>, BadHead> {
    let mut lines = [const { MaybeUninit::uninit() }; ANSWER_HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, read, &mut lines) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooLarge),
        Err(_) => return Err(BadHead::Syntax),
    };
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(BadHead::Syntax)?;
    let minor = parsed.version.ok_or(BadHead::Syntax)?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| BadHead::Syntax)?;
        headers.append(name, HeaderValue::from_bytes(line.value).map_err(|_| BadHead::Syntax)?);
    }
    let _ = read.split_to(length);
    Ok(Some((status, minor, headers)))
}

/// The length of a message's body (RFC 9112, 6.3); what could be understood in two ways is refused.
fn finish(status: StatusCode, minor: u8, mut headers: HeaderMap, method: &Method) -> Result<Head, BadHead> {
    let says = |word: &str| {
        let lines = headers.get_all(header::CONNECTION).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|said| said.trim().eq_ignore_ascii_case(word))
    };
    let mut persistent = if minor == 0 { says("keep-alive") } else { true } && !says("close");
    let has_no_body = *method == Method::HEAD || matches!(status.as_u16(), 204 | 304);
    let declared = length(&headers)?;
    let coding = headers.remove(header::TRANSFER_ENCODING);
    let framing = if has_no_body {
        Framing::Length(0)
    } else if let Some(coding) = coding {
        // No other coding was asked for. A length beside it is wrong, and whoever sent both is not trusted further.
        if minor == 0 || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(BadHead::Length);
        }
        persistent &= headers.remove(header::CONTENT_LENGTH).is_none();
        Framing::chunked()
    } else {
        declared.map_or(Framing::Close, Framing::Length)
    };
    persistent &= !matches!(framing, Framing::Close);
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(Head { answer, framing, persistent })
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, BadHead> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    if headers.get_all(header::TRANSFER_ENCODING).iter().nth(1).is_some() || lines.any(|other| other != first) {
        return Err(BadHead::Length);
    }
    let digits = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).map(Some).ok_or(BadHead::Length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, framing and whether the connection persists, and what is left.
    fn told(text: &str, method: &Method) -> String {
        let mut read = BytesMut::from(text.as_bytes());
        match take(&mut read, method) {
            Ok(None) => "incomplete".to_owned(),
            Ok(Some(head)) => {
                let (status, kept) = (head.answer.status().as_u16(), if head.persistent { "keep" } else { "close" });
                format!("{status} {:?} {kept} {}", head.framing, String::from_utf8_lossy(&read))
            }
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn an_answer_ends_where_the_standard_says() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 Length(2) keep ok"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", "incomplete"),
            ("HTTP/1.1 200\r\n\r\nall", "200 Close close all"),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "200 Length(0) close "),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", "200 Length(0) keep "),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, close\r\n\r\n", "200 Length(0) close "),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0", "200 Chunked(Size) keep 0"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n", "200 Chunked(Size) close "),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "Length"),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "Length"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", "Length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n", "200 Length(2) keep "),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", "Length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n", "Length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n", "Length"),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "Length"),
            ("HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n", "204 Length(0) keep "),
            ("HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n", "304 Length(0) keep "),
            ("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 N\r\n\r\n", "204 Length(0) keep "),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2", "incomplete"),
            ("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "Switch"),
            ("HTTP/2 200 OK\r\n\r\n", "Syntax"),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "Syntax"),
            ("HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "Syntax"),
            ("\0garbage\r\n\r\n", "Syntax"),
        ] {
            assert_eq!(told(text, &Method::GET), expected, "{text}");
        }
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(told(answer, &Method::HEAD), "200 Length(0) keep ");
        assert_eq!(told(&"HTTP/1.1 200 OK\r\nA: ".repeat(20_000), &Method::GET), "TooLarge");
    }

    #[test]
    fn what_frames_the_body_of_one_connection_stays_on_it() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\nA: b\r\nA: c\r\n\r\n";
        let head = take(&mut BytesMut::from(text), &Method::GET).unwrap().unwrap();
        assert_eq!(format!("{:?}", head.answer.headers()), r#"{"a": "b", "a": "c"}"#);
    }
}
