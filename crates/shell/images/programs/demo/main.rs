//! The demo application: one static program that serves HTTP and has verbs for tests and tours.
//!
//! It uses nothing but the standard library, so that the build can compile it with a bare `rustc`.

mod load;
mod notes;
mod server;
mod verbs;

use std::process::exit;
use std::sync::Arc;

const HELP: &str = "\
demo: a small application to try a cluster with

  demo                      serve HTTP on port 8080 ($PORT)
  demo notes HOST:PORT      serve notes that a Redis server keeps: PUT and GET /notes/ID, GET /notes
  demo get URL              print what an HTTP URL answers
  demo lookup NAME          print the addresses of a name
  demo exit CODE            end with this code
  demo crash                end by a signal
  demo sleep SECONDS        wait
  demo write FILE BYTES     write a file of this size
  demo stat FILE            print a file's size

served paths: /  /headers  /status/CODE  /delay?ms=N  /load?cpu=MILLICORES&seconds=N
              /load?memory=MB&seconds=N  /crash
";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [] => server::serve(Arc::new(server::answer)),
        ["notes", store] => notes::serve(store),
        ["get", url] => verbs::get(url),
        ["lookup", name] => verbs::lookup(name),
        ["exit", code] => exit(code.parse().unwrap_or(2)),
        ["crash"] => std::process::abort(),
        ["sleep", seconds] => verbs::sleep(seconds),
        ["write", file, bytes] => verbs::write(file, bytes),
        ["stat", file] => verbs::stat(file),
        ["--help" | "-h" | "help"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => {
            eprint!("{HELP}");
            exit(2)
        }
    };
    if let Err(error) = result {
        eprintln!("demo: {error}");
        exit(1);
    }
}
