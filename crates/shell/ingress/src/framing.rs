//! Where the body of an HTTP/1.1 message ends: by its length, by its last chunk, or with its connection.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// A chunk's size with its extensions, which are not passed on.
const CHUNK_LINE_BYTES_MAX: usize = 4096;
const TRAILERS_BYTES_MAX: usize = 16 << 10;
const TRAILERS_MAX: usize = 64;

/// A chunked body breaks its own rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunks of the body are broken")]
pub struct BadChunk;

/// What is left of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked(Chunk),
    /// Until the connection ends.
    Close,
}

/// The place in a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Over,
}

/// The next part of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    /// The body is over; what follows belongs to nobody.
    End,
    /// More has to be read first.
    Wanting,
}

impl Framing {
    pub fn chunked() -> Self {
        Self::Chunked(Chunk::Size)
    }

    /// Whether nothing of the body is left.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Over))
    }

    /// Takes the next piece off the front of what was read.
    pub fn take(&mut self, read: &mut BytesMut) -> Result<Piece, BadChunk> {
        match self {
            _ if self.is_over() => Ok(Piece::End),
            Self::Chunked(chunk) => chunk.take(read),
            _ if read.is_empty() => Ok(Piece::Wanting),
            Self::Close => Ok(Piece::Data(read.split().freeze())),
            Self::Length(left) => Ok(Piece::Data(up_to(read, left))),
        }
    }
}

fn up_to(read: &mut BytesMut, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
    *left -= length as u64;
    read.split_to(length).freeze()
}

impl Chunk {
    fn take(&mut self, read: &mut BytesMut) -> Result<Piece, BadChunk> {
        loop {
            match self {
                Self::Size => match httparse::parse_chunk_size(read) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        let _ = read.split_to(length);
                        *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                    }
                    Ok(httparse::Status::Partial) if read.len() < CHUNK_LINE_BYTES_MAX => return Ok(Piece::Wanting),
                    _ => return Err(BadChunk),
                },
                Self::Data(_) if read.is_empty() => return Ok(Piece::Wanting),
                Self::Data(left) => {
                    let data = up_to(read, left);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(Piece::Data(data));
                }
                Self::DataEnd if read.len() < 2 => return Ok(Piece::Wanting),
                Self::DataEnd if *read.split_to(2) != *b"\r\n" => return Err(BadChunk),
                Self::DataEnd => *self = Self::Size,
                Self::Trailers => {
                    let Some(trailers) = trailers(read)? else { return Ok(Piece::Wanting) };
                    *self = Self::Over;
                    return Ok(if trailers.is_empty() { Piece::End } else { Piece::Trailers(trailers) });
                }
                Self::Over => return Ok(Piece::End),
            }
        }
    }
}

fn trailers(read: &mut BytesMut) -> Result<Option<HeaderMap>, BadChunk> {
    let mut lines = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    let mut headers = HeaderMap::new();
    let length = match httparse::parse_headers(read, &mut lines) {
        Ok(httparse::Status::Complete((length, lines))) => {
            for line in lines {
                let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| BadChunk)?;
                headers.append(name, HeaderValue::from_bytes(line.value).map_err(|_| BadChunk)?);
            }
            length
        }
        Ok(httparse::Status::Partial) if read.len() < TRAILERS_BYTES_MAX => return Ok(None),
        _ => return Err(BadChunk),
    };
    let _ = read.split_to(length);
    Ok(Some(headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body's data, its trailers and what is left behind it, when `text` comes in parts of `step` bytes.
    fn told(text: &str, step: usize) -> String {
        let (mut framing, mut read, mut data, mut sent) = (Framing::chunked(), BytesMut::new(), String::new(), 0);
        loop {
            match framing.take(&mut read) {
                Ok(Piece::Data(more)) => data.push_str(&String::from_utf8_lossy(&more)),
                Ok(Piece::Trailers(trailers)) => data.push_str(&format!(" {trailers:?}")),
                Ok(Piece::End) => return format!("{data} | {}", String::from_utf8_lossy(&read)),
                Ok(Piece::Wanting) if sent == text.len() => return format!("{data} ..."),
                Ok(Piece::Wanting) => {
                    let end = (sent + step).min(text.len());
                    read.extend_from_slice(&text.as_bytes()[sent..end]);
                    sent = end;
                }
                Err(BadChunk) => return format!("{data} bad"),
            }
        }
    }

    #[test]
    fn chunks_are_read_however_they_come() {
        for (text, expected) in [
            ("5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n", "hello world | "),
            ("A\r\n0123456789\r\n0\r\nSum: 1\r\n\r\n", "0123456789 {\"sum\": \"1\"} | "),
            ("5\r\nhel", "hel ..."),
            ("5\r\nhello\r\n0\r\n", "hello ..."),
            ("5\r\nhelloX\n0\r\n\r\n", "hello bad"),
            ("5\nhello\r\n0\r\n\r\n", " bad"),
            ("-1\r\nx\r\n", " bad"),
            ("fffffffffffffffff\r\nx", " bad"),
            ("0\r\nNo header\r\n\r\n", " bad"),
        ] {
            for step in [1, 3, 1000] {
                assert_eq!(told(text, step), expected, "{text} in {step}");
            }
        }
        assert_eq!(told(&format!("5;{}", "x".repeat(CHUNK_LINE_BYTES_MAX)), 100), " bad");
        assert_eq!(told(&format!("0\r\nA: {}", "x".repeat(TRAILERS_BYTES_MAX)), 100), " bad");
        assert_eq!(told("0\r\n\r\nHTTP/1.1 200", 1000), " | HTTP/1.1 200", "what was not asked for is seen");
    }

    #[test]
    fn a_length_is_kept_to() {
        let (mut framing, mut read) = (Framing::Length(3), BytesMut::from("ab"));
        assert_eq!(framing.take(&mut read), Ok(Piece::Data("ab".into())));
        assert_eq!(framing.take(&mut read), Ok(Piece::Wanting));
        read.extend_from_slice(b"cd");
        assert_eq!(framing.take(&mut read), Ok(Piece::Data("c".into())));
        assert!(framing.is_over() && framing.take(&mut read) == Ok(Piece::End) && read == "d");
    }
}
