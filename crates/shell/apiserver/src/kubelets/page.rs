//! Answers from behind the proxy: redirects and the links of pages lead through the proxy again.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::links::{Links, Rewriter};
use crate::body::{Body, BoxError};

/// Rewrites the redirect of an answer, or its page where it is one.
pub fn rewrite(mut response: Response<Body>, links: Links) -> Response<Body> {
    if let Some(location) = text(response.headers(), &LOCATION) {
        if let Some(new) = links.rewrite(location).and_then(|new| HeaderValue::from_str(&new).ok()) {
            response.headers_mut().insert(LOCATION, new);
        }
        return response;
    }
    let media = text(response.headers(), &CONTENT_TYPE).unwrap_or("").split(';').next().unwrap_or("").trim();
    let coding = text(response.headers(), &CONTENT_ENCODING).and_then(Coding::of);
    let Some(coding) = coding.or_else(|| plain(response.headers())).filter(|_| media == "text/html") else {
        return response;
    };
    response.headers_mut().remove(CONTENT_LENGTH);
    response.map(|body| page(body, Page { coding, rewriter: Rewriter::new(links) }))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty())
}

fn plain(headers: &HeaderMap) -> Option<Coding> {
    text(headers, &CONTENT_ENCODING).is_none().then_some(Coding::Plain)
}

fn page(mut body: Body, mut page: Page) -> Body {
    let frames = async_stream::stream! {
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => match page.push(&data) {
                    Ok(ready) if ready.is_empty() => {}
                    ready => yield ready.map(|ready| Frame::data(Bytes::from(ready))).map_err(BoxError::from),
                },
                // Trailers speak of the page as it was.
                Ok(Err(_)) => {}
                Err(error) => {
                    yield Err(error);
                    return;
                }
            }
        }
        yield page.finish().map(|rest| Frame::data(Bytes::from(rest))).map_err(BoxError::from);
    };
    StreamBody::new(frames).boxed_unsync()
}

/// How the bytes of a page are packed.
enum Coding {
    Plain,
    Gzip(GzDecoder<Vec<u8>>, GzEncoder<Vec<u8>>),
    Deflate(DeflateDecoder<Vec<u8>>, DeflateEncoder<Vec<u8>>),
}

impl Coding {
    fn of(name: &str) -> Option<Self> {
        match name {
            "gzip" => Some(Self::Gzip(GzDecoder::new(Vec::new()), GzEncoder::new(Vec::new(), Compression::default()))),
            "deflate" => Some(Self::Deflate(
                DeflateDecoder::new(Vec::new()),
                DeflateEncoder::new(Vec::new(), Compression::default()),
            )),
            _ => None,
        }
    }
}

struct Page {
    coding: Coding,
    rewriter: Rewriter,
}

impl Page {
    fn push(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        match &mut self.coding {
            Coding::Plain => Ok(self.rewriter.push(piece)),
            Coding::Gzip(unpack, pack) => {
                unpack.write_all(piece)?;
                pack.write_all(&self.rewriter.push(&std::mem::take(unpack.get_mut())))?;
                Ok(std::mem::take(pack.get_mut()))
            }
            Coding::Deflate(unpack, pack) => {
                unpack.write_all(piece)?;
                pack.write_all(&self.rewriter.push(&std::mem::take(unpack.get_mut())))?;
                Ok(std::mem::take(pack.get_mut()))
            }
        }
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        match self.coding {
            Coding::Plain => Ok(self.rewriter.finish()),
            Coding::Gzip(unpack, mut pack) => {
                let rest = unpack.finish()?;
                pack.write_all(&self.rewriter.push(&rest))?;
                pack.write_all(&self.rewriter.finish())?;
                pack.finish()
            }
            Coding::Deflate(unpack, mut pack) => {
                let rest = unpack.finish()?;
                pack.write_all(&self.rewriter.push(&rest))?;
                pack.write_all(&self.rewriter.finish())?;
                pack.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;

    const PAGE: &str = r#"<a href="/x">x</a>"#;

    fn links() -> Links {
        Links { prefix: "/p/proxy".into(), hosts: vec!["10.0.0.1:80".into()] }
    }

    async fn answer(headers: &[(HeaderName, &str)], bytes: Vec<u8>) -> (HeaderMap, Vec<u8>) {
        let mut response = Response::new(body::full(bytes));
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        let (parts, body) = rewrite(response, links()).into_parts();
        (parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
    }

    #[tokio::test]
    async fn pages_are_unpacked_rewritten_and_packed() {
        let wanted = PAGE.replace("/x", "/p/proxy/x");
        let html = (CONTENT_TYPE, "text/html; charset=utf-8");
        let (headers, got) = answer(&[html.clone(), (CONTENT_LENGTH, "18")], PAGE.into()).await;
        assert_eq!(String::from_utf8(got).unwrap(), wanted);
        assert!(!headers.contains_key(CONTENT_LENGTH));

        let mut pack = GzEncoder::new(Vec::new(), Compression::default());
        pack.write_all(PAGE.as_bytes()).unwrap();
        let (_, got) = answer(&[html.clone(), (CONTENT_ENCODING, "gzip")], pack.finish().unwrap()).await;
        let mut unpack = GzDecoder::new(Vec::new());
        unpack.write_all(&got).unwrap();
        assert_eq!(String::from_utf8(unpack.finish().unwrap()).unwrap(), wanted);

        // What cannot be read is passed as it is, and so is what is no page.
        let (_, got) = answer(&[html, (CONTENT_ENCODING, "br")], PAGE.into()).await;
        assert_eq!(got, PAGE.as_bytes());
        let (_, got) = answer(&[(CONTENT_TYPE, "text/plain")], PAGE.into()).await;
        assert_eq!(got, PAGE.as_bytes());
    }

    #[tokio::test]
    async fn redirects_lead_through_the_proxy() {
        for (given, wanted) in [("/login", "/p/proxy/login"), ("http://10.0.0.1:80/a", "/p/proxy/a"), ("b", "b")] {
            let (headers, _) = answer(&[(LOCATION, given)], Vec::new()).await;
            assert_eq!(headers[LOCATION], wanted);
        }
    }
}
