//! `/logs/`: the files of the machine's own log directory, for those who may see all of a node.

use std::path::{Component, Path, PathBuf};

use futures::TryStreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use percent_encoding::percent_decode_str;
use streams::{AnyBody, full};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::Refusal;

/// Where Linux programs log.
pub const LOG_DIR: &str = "/var/log";
/// Names of one listing; the rest of a larger directory is left out.
const NAMES_MAX: usize = 10_000;

/// Answers for what a path, as it stands in a request, names below `root`: a file's bytes, or a directory's names as links.
///
/// # Errors
/// There is no such file, or it lies outside of `root`.
pub async fn answer(root: &Path, path: &str) -> Result<Response<AnyBody>, Refusal> {
    let missing = || Refusal(StatusCode::NOT_FOUND, "404 page not found".to_owned());
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let relative = Path::new(decoded.trim_start_matches('/'));
    if relative.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(Refusal(StatusCode::BAD_REQUEST, "invalid URL path".to_owned()));
    }
    let root = tokio::fs::canonicalize(root).await.map_err(|_| missing())?;
    let file = tokio::fs::canonicalize(root.join(relative)).await.map_err(|_| missing())?;
    // A link may lead anywhere, but only what is below the directory is a log.
    if !file.starts_with(&root) {
        return Err(missing());
    }
    let unreadable = |error: std::io::Error| {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot read {}: {error}", file.display()))
    };
    let facts = tokio::fs::metadata(&file).await.map_err(unreadable)?;
    match () {
        () if facts.is_dir() && !path.ends_with('/') => Ok(redirect(relative)),
        () if facts.is_dir() => Ok(html(listing(&names(file.clone()).await.map_err(unreadable)?))),
        () if facts.is_file() => whole(&file, facts.len()).await.map_err(unreadable),
        () => Err(missing()),
    }
}

/// Links in a listing are relative, so a directory's address has to end with a slash.
fn redirect(directory: &Path) -> Response<AnyBody> {
    let name = directory.file_name().map_or("logs".into(), |name| name.to_string_lossy());
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(place) = HeaderValue::try_from(format!("{}/", escaped(&name))) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

async fn names(directory: PathBuf) -> std::io::Result<Vec<String>> {
    let mut entries = tokio::fs::read_dir(directory).await?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await?
        && names.len() < NAMES_MAX
    {
        let slash = if entry.file_type().await?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort_unstable();
    Ok(names)
}

fn listing(names: &[String]) -> String {
    let link = |name: &String| format!("<a href=\"{0}\">{0}</a>\n", escaped(name));
    format!("<!doctype html>\n<pre>\n{}</pre>\n", names.iter().map(link).collect::<String>())
}

/// A name as text and address of a link: whatever could be markup, or another address, as its code.
fn escaped(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'/' | b'@' => text.push(char::from(byte)),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

fn html(text: String) -> Response<AnyBody> {
    let mut response = Response::new(full(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// What is appended while it is read comes with the next request.
async fn whole(file: &Path, length: u64) -> std::io::Result<Response<AnyBody>> {
    let bytes = ReaderStream::new(File::open(file).await?.take(length));
    let frames = bytes.map_ok(Frame::data).map_err(Into::into);
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(root: &Path, path: &str) -> (u16, String) {
        match answer(root, path).await {
            Ok(response) => {
                let code = response.status().as_u16();
                let place = response.headers().get(header::LOCATION).map(|place| place.to_str().unwrap().to_owned());
                let bytes = response.into_body().collect().await.unwrap().to_bytes();
                (code, place.unwrap_or_else(|| String::from_utf8(bytes.to_vec()).unwrap()))
            }
            Err(Refusal(code, message)) => (code.as_u16(), message),
        }
    }

    #[tokio::test]
    async fn only_what_lies_below_the_directory_is_shown() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        let logs = tempfile::tempdir().unwrap();
        std::fs::create_dir(logs.path().join("apt")).unwrap();
        std::fs::write(logs.path().join("apt/history.log"), "installed\n").unwrap();
        std::fs::write(logs.path().join("a\"<b>.log"), "quoted").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), logs.path().join("link")).unwrap();
        let rows = [
            (
                "/",
                200,
                "<!doctype html>\n<pre>\n<a href=\"a%22%3Cb%3E.log\">a%22%3Cb%3E.log</a>\n<a href=\"apt/\">apt/</a>\n\
                 <a href=\"link\">link</a>\n</pre>\n",
            ),
            ("/apt", 301, "apt/"),
            ("/apt/", 200, "<!doctype html>\n<pre>\n<a href=\"history.log\">history.log</a>\n</pre>\n"),
            ("/apt/history.log", 200, "installed\n"),
            ("/a%22%3Cb%3E.log", 200, "quoted"),
            ("/%2e%2e/secret", 400, "invalid URL path"),
            ("/apt/none", 404, "404 page not found"),
            ("/link", 404, "404 page not found"),
            ("/../secret", 400, "invalid URL path"),
        ];
        for (path, code, text) in rows {
            assert_eq!(ask(logs.path(), path).await, (code, text.to_owned()), "{path}");
        }
    }
}
