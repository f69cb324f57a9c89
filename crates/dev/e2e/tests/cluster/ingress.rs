//! Ingresses on real nodes: routes, certificates and statuses; and Gateways through the same proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Load, Scope, contains, eventually};
use machine::processes::Process;

use crate::{heal, rollout};

const DEMO: &str = include_str!("../../../../../examples/demo.yaml");
const SITE: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: site}
spec:
  tls: [{hosts: [secure.example.com], secretName: site}]
  rules:
  - host: demo.example.com
    http: {paths: [{path: /shop, pathType: Prefix, backend: {service: {name: demo, port: {name: http}}}}]}
  - host: secure.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: demo, port: {number: 80}}}}]}
  - host: nobody.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: nobody, port: {number: 80}}}}]}
";
const WITHIN: Duration = Duration::from_secs(20);

pub fn routes_and_certificates(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "ingress")?;
    scope.apply(DEMO)?;
    scope.rolled_out("demo")?;
    scope.apply(SITE)?;
    ensure!(scope.field("ingress site", "{.spec.ingressClassName}")? == "tug", "the default class is written");
    let nodes = nodes(&scope)?;
    for node in &nodes {
        on_node(node)?;
    }
    status(&scope, &nodes)?;
    certificates(&scope, &nodes)?;
    scope.delete()
}

fn nodes(scope: &Scope<'_>) -> Result<Vec<String>> {
    let all = scope.field("nodes", "{.items[*].status.addresses[?(@.type==\"InternalIP\")].address}")?;
    let nodes: Vec<String> = all.split_whitespace().map(str::to_owned).collect();
    ensure!(nodes.len() == 3, "{all:?}");
    Ok(nodes)
}

/// Asks one node for a URL as curl would find it by DNS; answers headers and body.
fn ask(node: &str, url: &str, more: &[&str]) -> Result<String> {
    let resolve: Vec<String> = ["demo", "secure", "nobody", "other"]
        .iter()
        .flat_map(|name| [80, 443].map(|port| format!("{name}.example.com:{port}:{node}")))
        .collect();
    let mut args = vec!["-sSi", "--max-time", "3"];
    args.extend(resolve.iter().flat_map(|entry| ["--resolve", entry.as_str()]));
    args.extend(more);
    args.push(url);
    machine::programs::run("curl", &args).with_context(|| format!("{url} on {node}"))
}

fn answers(node: &str, url: &str, more: &[&str], wanted: &[&str]) -> Result<()> {
    eventually(WITHIN, url, || contains(&ask(node, url, more)?, wanted))
}

fn on_node(node: &str) -> Result<()> {
    answers(node, "http://demo.example.com/shop", &[], &["200 OK", "/shop"])?;
    answers(node, "http://demo.example.com/shop/cart?a=1", &[], &["200 OK"])?;
    answers(node, "http://demo.example.com/shopping", &[], &["404 Not Found"])?;
    answers(node, "http://other.example.com/shop", &[], &["404 Not Found"])?;
    answers(node, "http://nobody.example.com/", &[], &["503", "the Service does not exist"])?;
    answers(node, "http://secure.example.com/a?b", &[], &["308", "https://secure.example.com/a?b"])
}

fn status(scope: &Scope<'_>, nodes: &[String]) -> Result<()> {
    eventually(WITHIN, "status.loadBalancer", || {
        let text = scope.field("ingress site", "{.status.loadBalancer.ingress[*].ip}")?;
        let mut shown: Vec<&str> = text.split_whitespace().collect();
        let mut wanted: Vec<&str> = nodes.iter().map(String::as_str).collect();
        shown.sort_unstable();
        wanted.sort_unstable();
        ensure!(shown == wanted, "{shown:?}");
        Ok(())
    })?;
    eventually(WITHIN, "an event says what is wrong", || {
        let text = scope.run("events --for ingress/site")?;
        contains(
            &text,
            &["NotServed", "ingress/nobody:80: the Service does not exist", "Secret site: it does not exist"],
        )
    })
}

/// A certificate from an authority of its own, in the Secret; answers the authority's file.
fn secret(scope: &Scope<'_>, name: &str) -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs().try_into()?;
    let authority = pki::Authority::generate(name, now)?;
    let host = "secure.example.com";
    let issued = authority.issue(&pki::CertificateRequest::serving(host, vec![host.to_owned()], vec![]), now)?;
    let file = |end: &str, text: &str| -> Result<String> {
        let path = scope.cluster.dir().join(format!("{name}.{end}"));
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let (key, certificate) = (file("key", &issued.key_pem)?, file("crt", &issued.certificate_pem)?);
    let made =
        scope.run(&format!("create secret tls site --key {key} --cert {certificate} --dry-run=client -o yaml"))?;
    scope.apply(&made)?;
    file("ca", authority.certificate_pem())
}

fn certificates(scope: &Scope<'_>, nodes: &[String]) -> Result<()> {
    for name in ["first", "second"] {
        let certificate = secret(scope, name)?;
        for node in nodes {
            answers(node, "https://secure.example.com/x", &["--cacert", &certificate], &["HTTP/2 200"])?;
            answers(
                node,
                "https://secure.example.com/x",
                &["--http1.1", "--cacert", &certificate],
                &["HTTP/1.1 200 OK"],
            )?;
        }
    }
    Ok(())
}

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: tug
  listeners: [{name: web, port: 8088, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: demo}
spec:
  parentRefs: [{name: front}]
  hostnames: [demo.example.com]
  rules:
  - matches: [{path: {type: Exact, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}, statusCode: 301}}]
  - matches: [{path: {value: /strip}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-by, value: tug}]}}
    backendRefs: [{name: demo, port: 80}]
";

/// Gateway API through the same proxy.
pub fn gateways(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "gateways")?;
    scope.apply(DEMO)?;
    scope.rolled_out("demo")?;
    scope.field_becomes("gatewayclass tug", "{.status.conditions[?(@.type==\"Accepted\")].status}", "True")?;
    scope.apply(GATEWAY)?;
    scope.field_becomes("gateway front", "{.status.conditions[?(@.type==\"Programmed\")].status}", "True")?;
    scope.field_becomes("gateway front", "{.status.listeners[0].attachedRoutes}", "1")?;
    let accepted = "{.status.parents[0].conditions[?(@.type==\"Accepted\")].reason}";
    scope.field_becomes("httproute demo", accepted, "Accepted")?;
    for node in nodes(&scope)? {
        let resolve = format!("demo.example.com:8088:{node}");
        let more = ["--resolve", resolve.as_str()];
        let url = |path: &str| format!("http://demo.example.com:8088{path}");
        answers(&node, &url("/old"), &more, &["301", "http://demo.example.com:8088/new"])?;
        answers(&node, &url("/strip/status/418"), &more, &["418", "x-by: tug"])?;
        answers(&node, &url("/other"), &more, &["404"])?;
    }
    scope.run("delete gateway front")?;
    scope.field_becomes("httproute demo", "{.status.parents}", "[]")?;
    scope.delete()
}

const SLOW_CLIENTS: usize = 5_000;
/// A client that says nothing costs its task and a little buffer, about 10 KB unoptimised; the process does other things
/// meanwhile. What a buffer of the largest headers for each would take is more than this.
const SLOW_CLIENTS_MEGABYTES_MAX: f64 = 200.0;

/// Clients that say nothing, or never finish, and one whose headers are too large, are in nobody's way.
pub fn slow_clients(cluster: &Cluster) -> Result<()> {
    let scope = Scope::new(cluster, "slow-clients")?;
    scope.apply(heal::DEMO)?;
    scope.rolled_out("demo")?;
    let node = nodes(&scope)?.swap_remove(0);
    rollout::open_doors(&scope, std::slice::from_ref(&node))?;
    let door = SocketAddr::new(node.parse()?, 80);
    let server = Process::read(&cluster.dir().join("server.pid")).context("no control plane runs")?;
    let before = resident_megabytes(&server)?;
    let mut slow = Vec::with_capacity(SLOW_CLIENTS);
    for index in 0..SLOW_CLIENTS {
        let mut stream = TcpStream::connect(door).with_context(|| format!("client {index}"))?;
        if index % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: slow.exam")?;
        }
        slow.push(stream);
    }
    let load = Load::start_over(vec![door], 100, Duration::from_secs(5));
    too_large(door)?;
    std::thread::sleep(Duration::from_secs(3));
    load.stop().lost_nothing(100).context("beside slow clients")?;
    let after = resident_megabytes(&server)?;
    println!("{SLOW_CLIENTS} slow clients: {before:.0} MB before, {after:.0} MB with them");
    ensure!(after - before < SLOW_CLIENTS_MEGABYTES_MAX, "memory grew from {before} MB to {after} MB");
    let mut late = slow.swap_remove(SLOW_CLIENTS - 2);
    late.write_all(b"ple.com\r\nConnection: close\r\n\r\n")?;
    ensure!(head(&mut late)?.starts_with("HTTP/1.1 200"), "a slow client is served in the end");
    scope.delete()
}

/// A megabyte of headers is answered, not cut off.
fn too_large(door: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(door)?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Large: {}", "x".repeat(1 << 20)).as_bytes())?;
    let answer = head(&mut stream)?;
    ensure!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    Ok(())
}

fn head(stream: &mut TcpStream) -> Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).context("no answer")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn resident_megabytes(process: &Process) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().with_context(|| line.to_owned())?;
    Ok(kib / 1024.0)
}
