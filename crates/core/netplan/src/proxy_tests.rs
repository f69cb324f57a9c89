//! Text in, text out for the service proxy, and histories against their end.

use super::*;
use crate::text::{Line, parse};
use expect_test::{Expect, expect};

fn config() -> ProxyConfig {
    ProxyConfig {
        table: "t".to_owned(),
        node: NodeIdentity { name: "n1".to_owned(), zone: Some("a".to_owned()) },
        node_ips: vec![[10, 10, 0, 1].into()],
        pod_cidrs: vec![([10, 200, 0, 0].into(), 16)],
        own_pod_cidrs: vec![([10, 200, 1, 0].into(), 24)],
        service_cidrs: vec![([10, 96, 0, 0].into(), 16)],
        dns: None,
    }
}

fn feed(state: &mut ProxyState, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match parse(line) {
            Line::Service(key, view) => state.set_service(key, Some(view)),
            Line::Slice(key, view) => state.set_slice(key, Some(view)),
            Line::Gone(key) => {
                state.set_service(key.clone(), None);
                state.set_slice(key, None);
            }
        }
    }
}

fn render(transaction: Option<Transaction>) -> String {
    let Some(transaction) = transaction else { return "nothing\n".to_owned() };
    let mut text = transaction.script.replace(" element ip t", "");
    for flush in transaction.udp_flushes {
        let endpoint = flush.endpoint.map_or("*".to_owned(), |e| format!("{}:{}", e.ip, e.port));
        text += &format!("flush {} -> {endpoint}\n", flush.frontend);
    }
    for change in transaction.affinity_moves {
        text += &format!("affinity {} slot {} -> {:?}\n", change.frontend, change.from, change.to);
    }
    text
}

/// Applies `before`, then shows the transaction that `change` causes.
fn check(before: &str, change: &str, expected: Expect) {
    let mut state = ProxyState::new(config());
    feed(&mut state, before);
    state.full();
    feed(&mut state, change);
    expected.assert_eq(&render(state.transaction()));
}

const WEB: &str = "service default/web 10.96.0.20 http/tcp/80";
const TWO: &str = "slice default/web-1 web http/tcp/8080 : 10.200.1.3@n1 10.200.2.4@n2";

#[test]
fn a_service_appears_grows_shrinks_and_goes() {
    check(
        "",
        &format!("{WEB}\n{TWO}"),
        expect![[r#"
        add service_ips { 10.96.0.20 . tcp . 80 : goto lb_2 }
        add eps { 10.96.0.20 . tcp . 80 . 0 : 10.200.1.3 . 8080, 10.96.0.20 . tcp . 80 . 1 : 10.200.2.4 . 8080 }
        add cluster_ips { 10.96.0.20 }
        add hairpin { 10.200.1.3 . 10.200.1.3 }
    "#]],
    );
    check(
        WEB,
        TWO,
        expect![[r#"
        delete no_endpoints { 10.96.0.20 . tcp . 80 }
        add service_ips { 10.96.0.20 . tcp . 80 : goto lb_2 }
        add eps { 10.96.0.20 . tcp . 80 . 0 : 10.200.1.3 . 8080, 10.96.0.20 . tcp . 80 . 1 : 10.200.2.4 . 8080 }
        add hairpin { 10.200.1.3 . 10.200.1.3 }
    "#]],
    );
    check(
        &format!("{WEB}\n{TWO}"),
        "slice default/web-1 web http/tcp/8080 : 10.200.2.4@n2",
        expect![[r#"
        delete service_ips { 10.96.0.20 . tcp . 80 }
        delete eps { 10.96.0.20 . tcp . 80 . 0, 10.96.0.20 . tcp . 80 . 1 }
        delete hairpin { 10.200.1.3 . 10.200.1.3 }
        add service_ips { 10.96.0.20 . tcp . 80 : goto lb_1 }
        add eps { 10.96.0.20 . tcp . 80 . 0 : 10.200.2.4 . 8080 }
    "#]],
    );
    check(
        &format!("{WEB}\n{TWO}"),
        "gone default/web-1",
        expect![[r#"
        delete service_ips { 10.96.0.20 . tcp . 80 }
        delete eps { 10.96.0.20 . tcp . 80 . 0, 10.96.0.20 . tcp . 80 . 1 }
        delete hairpin { 10.200.1.3 . 10.200.1.3 }
        add no_endpoints { 10.96.0.20 . tcp . 80 : goto reject_it }
    "#]],
    );
    check(
        &format!("{WEB}\n{TWO}"),
        "gone default/web",
        expect![[r#"
        delete service_ips { 10.96.0.20 . tcp . 80 }
        delete eps { 10.96.0.20 . tcp . 80 . 0, 10.96.0.20 . tcp . 80 . 1 }
        delete cluster_ips { 10.96.0.20 }
        delete hairpin { 10.200.1.3 . 10.200.1.3 }
    "#]],
    );
    check(
        &format!("{WEB}\n{TWO}"),
        TWO,
        expect![[r#"
        nothing
    "#]],
    );
}

#[test]
fn a_terminating_endpoint_serves_only_when_no_other_does() {
    let both = format!("{WEB}\n{TWO}");
    check(
        &both,
        "slice default/web-1 web http/tcp/8080 : 10.200.1.3@n1!terminating 10.200.2.4@n2",
        expect![[r#"
        delete service_ips { 10.96.0.20 . tcp . 80 }
        delete eps { 10.96.0.20 . tcp . 80 . 0, 10.96.0.20 . tcp . 80 . 1 }
        add service_ips { 10.96.0.20 . tcp . 80 : goto lb_1 }
        add eps { 10.96.0.20 . tcp . 80 . 0 : 10.200.2.4 . 8080 }
    "#]],
    );
    check(
        &both,
        "slice default/web-1 web http/tcp/8080 : 10.200.1.3@n1!terminating 10.200.2.4@n2!unready",
        expect![[r#"
        delete service_ips { 10.96.0.20 . tcp . 80 }
        delete eps { 10.96.0.20 . tcp . 80 . 1 }
        add service_ips { 10.96.0.20 . tcp . 80 : goto lb_1 }
    "#]],
    );
}

#[test]
fn node_ports_and_outside_addresses_follow_the_traffic_policy() {
    check(
        TWO,
        "service default/web 10.96.0.20 http/tcp/80/30080 external=1.2.3.4",
        expect![[r#"
        add service_ips { 1.2.3.4 . tcp . 80 : goto lb_2, 10.96.0.20 . tcp . 80 : goto lb_2 }
        add nodeports { tcp . 30080 : goto np_2 }
        add eps { 1.2.3.4 . tcp . 80 . 0 : 10.200.1.3 . 8080, 1.2.3.4 . tcp . 80 . 1 : 10.200.2.4 . 8080, 10.96.0.20 . tcp . 80 . 0 : 10.200.1.3 . 8080, 10.96.0.20 . tcp . 80 . 1 : 10.200.2.4 . 8080 }
        add np_eps { tcp . 30080 . 0 : 10.200.1.3 . 8080, tcp . 30080 . 1 : 10.200.2.4 . 8080 }
        add cluster_ips { 10.96.0.20 }
        add hairpin { 10.200.1.3 . 10.200.1.3 }
    "#]],
    );
    check(
        TWO,
        "service default/web 10.96.0.20 http/tcp/80/30080 lb=1.2.3.4 external-policy=Local from=9.0.0.0/8",
        expect![[r#"
            add service_ips { 1.2.3.4 . tcp . 80 : goto lb_2, 10.96.0.20 . tcp . 80 : goto lb_2 }
            add local_ips { 1.2.3.4 . tcp . 80 : goto lbl_1 }
            add nodeports { tcp . 30080 : goto np_2 }
            add local_nodeports { tcp . 30080 : goto npl_1 }
            add eps { 1.2.3.4 . tcp . 80 . 0 : 10.200.1.3 . 8080, 1.2.3.4 . tcp . 80 . 1 : 10.200.2.4 . 8080, 10.96.0.20 . tcp . 80 . 0 : 10.200.1.3 . 8080, 10.96.0.20 . tcp . 80 . 1 : 10.200.2.4 . 8080 }
            add local_eps { 1.2.3.4 . tcp . 80 . 0 : 10.200.1.3 . 8080 }
            add np_eps { tcp . 30080 . 0 : 10.200.1.3 . 8080, tcp . 30080 . 1 : 10.200.2.4 . 8080 }
            add local_np_eps { tcp . 30080 . 0 : 10.200.1.3 . 8080 }
            add cluster_ips { 10.96.0.20 }
            add hairpin { 10.200.1.3 . 10.200.1.3 }
            add firewall { 1.2.3.4 . tcp . 80 }
            add firewall_sources { 1.2.3.4 . tcp . 80 . 9.0.0.0/8 }
        "#]],
    );
    check(
        "slice default/web-1 web http/tcp/8080 : 10.200.2.4@n2",
        "service default/web 10.96.0.20 http/tcp/80/30080 lb=1.2.3.4 external-policy=Local internal=Local",
        expect![[r#"
            add service_ips { 1.2.3.4 . tcp . 80 : goto lb_1 }
            add local_ips { 1.2.3.4 . tcp . 80 : drop }
            add nodeports { tcp . 30080 : goto np_1 }
            add local_nodeports { tcp . 30080 : drop }
            add no_endpoints { 10.96.0.20 . tcp . 80 : drop }
            add eps { 1.2.3.4 . tcp . 80 . 0 : 10.200.2.4 . 8080 }
            add np_eps { tcp . 30080 . 0 : 10.200.2.4 . 8080 }
            add cluster_ips { 10.96.0.20 }
        "#]],
    );
}

#[test]
fn health_checks_count_the_ready_endpoints_here() {
    let mut state = ProxyState::new(config());
    feed(&mut state, "service default/web 10.96.0.20 http/tcp/80/30080 lb=1.2.3.4 external-policy=Local health=30999");
    let counts =
        |state: &ProxyState| state.health_checks().into_iter().map(|(port, (_, n))| (port, n)).collect::<Vec<_>>();
    assert_eq!(counts(&state), [(30_999, 0)]);
    feed(
        &mut state,
        "slice default/w web http/tcp/80 : 10.200.1.3@n1 10.200.1.4@n1!terminating 10.200.2.4@n2 10.200.1.5@n1",
    );
    assert_eq!(counts(&state), [(30_999, 2)]);
    feed(&mut state, "service default/web 10.96.0.20 http/tcp/80/30080");
    assert_eq!(counts(&state), []);
}

#[test]
fn udp_flows_of_gone_endpoints_are_flushed() {
    let service = "service default/dns 10.96.0.30 d/udp/53/30053\n";
    let slice = "slice default/d dns d/udp/53 : 10.200.1.3@n1 10.200.2.4@n2";
    check(
        &format!("{service}{slice}"),
        "slice default/d dns d/udp/53 : 10.200.2.4@n2",
        expect![[r#"
        delete service_ips { 10.96.0.30 . udp . 53 }
        delete nodeports { udp . 30053 }
        delete eps { 10.96.0.30 . udp . 53 . 0, 10.96.0.30 . udp . 53 . 1 }
        delete np_eps { udp . 30053 . 0, udp . 30053 . 1 }
        delete hairpin { 10.200.1.3 . 10.200.1.3 }
        add service_ips { 10.96.0.30 . udp . 53 : goto lb_1 }
        add nodeports { udp . 30053 : goto np_1 }
        add eps { 10.96.0.30 . udp . 53 . 0 : 10.200.2.4 . 53 }
        add np_eps { udp . 30053 . 0 : 10.200.2.4 . 53 }
        flush udp . 30053 -> 10.200.1.3:53
        flush 10.96.0.30 . udp . 53 -> 10.200.1.3:53
    "#]],
    );
    check(
        service,
        slice,
        expect![[r#"
        delete no_endpoints { 10.96.0.30 . udp . 53 }
        delete no_endpoints_np { udp . 30053 }
        add service_ips { 10.96.0.30 . udp . 53 : goto lb_2 }
        add nodeports { udp . 30053 : goto np_2 }
        add eps { 10.96.0.30 . udp . 53 . 0 : 10.200.1.3 . 53, 10.96.0.30 . udp . 53 . 1 : 10.200.2.4 . 53 }
        add np_eps { udp . 30053 . 0 : 10.200.1.3 . 53, udp . 30053 . 1 : 10.200.2.4 . 53 }
        add hairpin { 10.200.1.3 . 10.200.1.3 }
        flush udp . 30053 -> *
        flush 10.96.0.30 . udp . 53 -> *
    "#]],
    );
}

#[test]
fn affinity_follows_endpoints_to_their_new_slots() {
    let service = "service default/web 10.96.0.20 http/tcp/80 affinity=10\n";
    check(
        service,
        TWO,
        expect![[r#"
        add chain ip t lb_go_s10
        flush chain ip t lb_go_s10
        table ip t {
          chain lb_go_s10 { update @affinity { ip saddr . ip daddr . meta l4proto . th dport timeout 10s : ct mark }; goto lb_go; }
          chain lb_2_s10 { ct mark set ip saddr . ip daddr . meta l4proto . th dport map @affinity jump lb_go_s10; ct mark set numgen random mod 2; goto lb_go_s10; }
        }
        delete no_endpoints { 10.96.0.20 . tcp . 80 }
        add service_ips { 10.96.0.20 . tcp . 80 : goto lb_2_s10 }
        add eps { 10.96.0.20 . tcp . 80 . 0 : 10.200.1.3 . 8080, 10.96.0.20 . tcp . 80 . 1 : 10.200.2.4 . 8080 }
        add hairpin { 10.200.1.3 . 10.200.1.3 }
    "#]],
    );
    check(
        &format!("{service}{TWO}"),
        "slice default/web-1 web http/tcp/8080 : 10.200.2.4@n2",
        expect![[r#"
        add chain ip t lb_go_s10
        flush chain ip t lb_go_s10
        table ip t {
          chain lb_go_s10 { update @affinity { ip saddr . ip daddr . meta l4proto . th dport timeout 10s : ct mark }; goto lb_go; }
          chain lb_1_s10 { ct mark set ip saddr . ip daddr . meta l4proto . th dport map @affinity jump lb_go_s10; ct mark set 0; goto lb_go_s10; }
        }
        delete service_ips { 10.96.0.20 . tcp . 80 }
        delete eps { 10.96.0.20 . tcp . 80 . 0, 10.96.0.20 . tcp . 80 . 1 }
        delete hairpin { 10.200.1.3 . 10.200.1.3 }
        add service_ips { 10.96.0.20 . tcp . 80 : goto lb_1_s10 }
        add eps { 10.96.0.20 . tcp . 80 . 0 : 10.200.2.4 . 8080 }
        affinity 10.96.0.20 . tcp . 80 slot 0 -> None
        affinity 10.96.0.20 . tcp . 80 slot 1 -> Some(0)
    "#]],
    );
}

#[test]
fn two_services_with_one_external_address_share_it_in_order() {
    let a = "service a/s 10.96.0.21 http/tcp/80 external=1.2.3.4\nslice a/s s http/tcp/1 : 10.200.1.1";
    let b = "service b/s 10.96.0.22 http/tcp/80 external=1.2.3.4\nslice b/s s http/tcp/2 : 10.200.1.2";
    check(
        b,
        a,
        expect![[r#"
        delete eps { 1.2.3.4 . tcp . 80 . 0 }
        add service_ips { 10.96.0.21 . tcp . 80 : goto lb_1 }
        add eps { 1.2.3.4 . tcp . 80 . 0 : 10.200.1.1 . 1, 10.96.0.21 . tcp . 80 . 0 : 10.200.1.1 . 1 }
        add cluster_ips { 10.96.0.21 }
        add hairpin { 10.200.1.1 . 10.200.1.1 }
    "#]],
    );
    check(
        &format!("{a}\n{b}"),
        "gone a/s",
        expect![[r#"
        delete service_ips { 10.96.0.21 . tcp . 80 }
        delete eps { 1.2.3.4 . tcp . 80 . 0, 10.96.0.21 . tcp . 80 . 0 }
        delete cluster_ips { 10.96.0.21 }
        delete hairpin { 10.200.1.1 . 10.200.1.1 }
        add eps { 1.2.3.4 . tcp . 80 . 0 : 10.200.1.2 . 2 }
    "#]],
    );
}

#[test]
fn hints_choose_the_zone_only_when_all_have_them() {
    check(
        WEB,
        "slice default/web-1 web http/tcp/8080 : 10.200.1.3@n1~a 10.200.2.4@n2~b",
        expect![[r#"
        delete no_endpoints { 10.96.0.20 . tcp . 80 }
        add service_ips { 10.96.0.20 . tcp . 80 : goto lb_1 }
        add eps { 10.96.0.20 . tcp . 80 . 0 : 10.200.1.3 . 8080 }
        add hairpin { 10.200.1.3 . 10.200.1.3 }
    "#]],
    );
    check(
        WEB,
        "slice default/web-1 web http/tcp/8080 : 10.200.1.3@n1~b 10.200.2.4@n2",
        expect![[r#"
        delete no_endpoints { 10.96.0.20 . tcp . 80 }
        add service_ips { 10.96.0.20 . tcp . 80 : goto lb_2 }
        add eps { 10.96.0.20 . tcp . 80 . 0 : 10.200.1.3 . 8080, 10.96.0.20 . tcp . 80 . 1 : 10.200.2.4 . 8080 }
        add hairpin { 10.200.1.3 . 10.200.1.3 }
    "#]],
    );
}

#[test]
fn affinity_listing_is_rewritten() {
    let listing = serde_json::json!({"nftables": [{"metainfo": {}}, {"map": {"name": "affinity", "elem": [
        [{"elem": {"val": {"concat": ["10.200.1.9", "10.96.0.20", "tcp", 80]}, "timeout": 10, "expires": 7}}, 1],
        [{"elem": {"val": {"concat": ["10.200.1.8", "10.96.0.20", "tcp", 80]}, "timeout": 10, "expires": 0}}, 0],
        [{"elem": {"val": {"concat": ["10.200.1.8", "10.96.0.99", "tcp", 80]}, "timeout": 10, "expires": 0}}, 0]]}}]});
    let frontend = Frontend { ip: Some([10, 96, 0, 20].into()), protocol: Protocol::Tcp, port: 80 };
    let moves = [Move { frontend, from: 0, to: None }, Move { frontend, from: 1, to: Some(0) }];
    expect![[r#"
        delete element ip t affinity { 10.200.1.9 . 10.96.0.20 . tcp . 80, 10.200.1.8 . 10.96.0.20 . tcp . 80 }
        add element ip t affinity { 10.200.1.9 . 10.96.0.20 . tcp . 80 timeout 10s expires 7s : 0 }
    "#]]
    .assert_eq(&crate::affinity::rewrite("t", &listing, &moves));
}

mod histories {
    use super::*;
    use proptest::prelude::*;

    fn line() -> impl Strategy<Value = String> {
        let policy =
            prop_oneof![Just(""), Just(" external-policy=Local"), Just(" internal=Local"), Just(" affinity=5")];
        let node_port = prop_oneof![Just(""), Just("/30080"), Just("/30081")];
        let outside = prop_oneof![Just(""), Just(" external=1.2.3.4"), Just(" lb=1.2.3.4 from=9.0.0.0/8")];
        let service = (0..4u8, node_port, policy, outside).prop_map(|(n, port, policy, outside)| {
            format!("service ns/s{n} 10.96.0.{n} http/tcp/80{port} d/udp/53{outside}{policy}")
        });
        let state = prop_oneof![Just(""), Just("!terminating"), Just("!unready")];
        let endpoint =
            (1..9u8, 1..3u8, state).prop_map(|(ip, node, state)| format!("10.200.{node}.{ip}@n{node}{state}"));
        let slice = (0..4u8, 0..4u8, proptest::collection::vec(endpoint, 0..5)).prop_map(|(n, s, endpoints)| {
            format!("slice ns/x{n} s{s} http/tcp/8080 d/udp/53 : {}", endpoints.join(" "))
        });
        prop_oneof![
            3 => service,
            4 => slice,
            1 => (0..4u8).prop_map(|n| format!("gone ns/s{n}")),
            1 => (0..4u8).prop_map(|n| format!("gone ns/x{n}")),
        ]
    }

    /// What a kernel would hold after the script; a wrong delete or a second add of a key fails as it would there.
    fn execute(table: &mut BTreeMap<(String, String), String>, script: &str) {
        for command in script.lines().filter(|line| line.contains(" element ip t ")) {
            let (head, body) = command.split_once(" { ").unwrap();
            let (verb, map) = (head.split(' ').next().unwrap(), head.rsplit(' ').next().unwrap());
            for element in body.strip_suffix(" }").unwrap().split(", ") {
                let (key, value) = element.split_once(" : ").unwrap_or((element, ""));
                let place = (map.to_owned(), key.to_owned());
                match verb {
                    "add" => assert_eq!(table.insert(place, value.to_owned()), None, "{element} added twice"),
                    _ => assert!(table.remove(&place).is_some(), "{element} deleted but absent"),
                }
            }
        }
    }

    /// Slots depend on history by design; what must not is which endpoints a frontend has.
    fn without_slots(table: &BTreeMap<(String, String), String>) -> Vec<String> {
        let mut all: Vec<String> = table
            .iter()
            .map(|((map, key), value)| {
                let key = if map.ends_with("eps") { key.rsplit_once(" . ").unwrap().0 } else { key };
                format!("{map} {key} {value}")
            })
            .collect();
        all.sort();
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
        #[test]
        fn step_by_step_equals_from_scratch(lines in proptest::collection::vec((line(), any::<bool>()), 1..30)) {
            let mut stepwise = ProxyState::new(config());
            let mut table = BTreeMap::new();
            execute(&mut table, &stepwise.full().script);
            for (line, commit) in &lines {
                feed(&mut stepwise, line);
                if *commit && let Some(transaction) = stepwise.transaction() {
                    execute(&mut table, &transaction.script);
                }
            }
            if let Some(transaction) = stepwise.transaction() {
                execute(&mut table, &transaction.script);
            }
            let mut full = BTreeMap::new();
            execute(&mut full, &stepwise.full().script);
            prop_assert_eq!(&table, &full);

            let mut fresh = ProxyState::new(config());
            for (key, view) in stepwise.services {
                fresh.set_service(key, Some(view));
            }
            for (key, owner) in stepwise.slice_owner {
                let view = stepwise.slices[&owner][&key.name].clone();
                fresh.set_slice(key, Some(view));
            }
            let mut scratch = BTreeMap::new();
            execute(&mut scratch, &fresh.full().script);
            prop_assert_eq!(without_slots(&table), without_slots(&scratch));
        }
    }
}
