//! Policies against their plain reading: text for a few, random histories and packets for the rest.

use super::*;
use crate::policy::judge::{Connection, World};
use crate::policy::kernel::{Kernel, Packet};
use crate::policy::view::{Peer, Port, PortNumber, Rule};
use crate::view::parse_cidr;
use expect_test::expect;
use serde_json::json;

fn config() -> PolicyConfig {
    PolicyConfig { table: "t".to_owned(), node: "n1".to_owned(), bridge: "br".to_owned(), dns: None }
}

fn labels(text: &str) -> Labels {
    text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn pod(ip: &str, node: &str, of: &str) -> PodView {
    let ports = vec![("web".to_owned(), Protocol::Tcp, 80), ("dns".to_owned(), Protocol::Udp, 53)];
    PodView { labels: Arc::new(labels(of)), ips: vec![ip.parse().unwrap()], node: node.to_owned(), ports }
}

fn policy(spec: serde_json::Value) -> PolicyView {
    let object = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec});
    PolicyView::from_object(&serde_json::from_value(object).unwrap()).unwrap()
}

fn small() -> PolicyState {
    let mut state = PolicyState::new(config());
    state.set_namespace("a".to_owned(), Some(labels("team=x")));
    state.set_namespace("b".to_owned(), Some(labels("team=y")));
    state.set_pod(Key::new("a", "web"), Some(pod("10.2.1.2", "n1", "app=web")));
    state.set_pod(Key::new("a", "client"), Some(pod("10.2.1.3", "n1", "app=client")));
    state.set_pod(Key::new("b", "far"), Some(pod("10.2.2.4", "n2", "app=client")));
    state
}

#[test]
fn rules_say_what_the_policy_says() {
    let mut state = small();
    assert_eq!(state.transaction(), None, "no policy, no table");
    state.set_policy(
        Key::new("a", "p"),
        Some(policy(json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "client"}}},
                      {"namespaceSelector": {"matchLabels": {"team": "y"}}},
                      {"ipBlock": {"cidr": "172.16.0.0/12", "except": ["172.16.1.0/24"]}}],
             "ports": [{"port": 80}, {"protocol": "UDP", "port": 100, "endPort": 200}, {"port": "web"}]}
        ]}))),
    );
    let script = state.transaction().unwrap();
    let own = script.split_once("th dport 53").map_or(script.as_str(), |(_, rest)| rest);
    let own = own.split_once("chain input").unwrap().1.split_once("}\n}\n").unwrap().1;
    expect![[r#"
        table ip t {
          set s1 { type ipv4_addr; elements = { 10.2.1.3 }; }
          set s2 { type inet_proto . inet_service; flags interval; elements = { tcp . 80, udp . 100-200 }; }
          set s3 { type ipv4_addr . inet_proto . inet_service; elements = { 10.2.1.2 . tcp . 80 }; }
          set s4 { type ipv4_addr; elements = { 10.2.2.4 }; }
          set s5 { type ipv4_addr; flags interval; elements = { 172.16.0.0-172.16.0.255, 172.16.2.0-172.31.255.255 }; }
          chain c1 { ip saddr @s1 meta l4proto . th dport @s2 accept; ip saddr @s1 ip daddr . meta l4proto . th dport @s3 accept; ip saddr @s4 meta l4proto . th dport @s2 accept; ip saddr @s4 ip daddr . meta l4proto . th dport @s3 accept; ip saddr @s5 meta l4proto . th dport @s2 accept; ip saddr @s5 ip daddr . meta l4proto . th dport @s3 accept; }
          chain c1_r { ip daddr @s1 meta l4proto . th sport @s2 accept; ip daddr @s1 ip saddr . meta l4proto . th sport @s3 accept; ip daddr @s4 meta l4proto . th sport @s2 accept; ip daddr @s4 ip saddr . meta l4proto . th sport @s3 accept; ip daddr @s5 meta l4proto . th sport @s2 accept; ip daddr @s5 ip saddr . meta l4proto . th sport @s3 accept; }
          chain c2 { jump c1; goto deny; }
          chain c2_r { jump c1_r; goto deny; }
        }
        add element ip t ingress { 10.2.1.2 : goto c2 }
        add element ip t itself { 10.2.1.2 . 10.2.1.2 }
        add element ip t ingress_r { 10.2.1.2 : goto c2_r }
    "#]]
    .assert_eq(own);

    state.set_pod(Key::new("b", "near"), Some(pod("10.2.1.9", "n1", "app=other")));
    expect![[r#"
        add element ip t s4 { 10.2.1.9 }
    "#]]
    .assert_eq(&state.transaction().unwrap());
    state.set_pod(Key::new("a", "web-2"), Some(pod("10.2.1.10", "n1", "app=web")));
    expect![[r#"
        add element ip t s3 { 10.2.1.10 . tcp . 80 }
        add element ip t ingress { 10.2.1.10 : goto c2 }
        add element ip t itself { 10.2.1.10 . 10.2.1.10 }
        add element ip t ingress_r { 10.2.1.10 : goto c2_r }
    "#]]
    .assert_eq(&state.transaction().unwrap());
    state.set_policy(
        Key::new("a", "p"),
        Some(policy(json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"]}))),
    );
    expect![[r#"
        table ip t {
          chain c3 { ; }
          chain c3_r { ; }
          chain c4 { jump c3; goto deny; }
          chain c4_r { jump c3_r; goto deny; }
          chain c5 { ; }
          chain c5_r { ; }
          chain c6 { jump c5; goto deny; }
          chain c6_r { jump c5_r; goto deny; }
        }
        delete element ip t ingress { 10.2.1.2, 10.2.1.10 }
        delete element ip t ingress_r { 10.2.1.2, 10.2.1.10 }
        add element ip t egress { 10.2.1.2 : goto c4, 10.2.1.10 : goto c4 }
        add element ip t ingress { 10.2.1.2 : goto c6, 10.2.1.10 : goto c6 }
        add element ip t egress_r { 10.2.1.2 : goto c4_r, 10.2.1.10 : goto c4_r }
        add element ip t ingress_r { 10.2.1.2 : goto c6_r, 10.2.1.10 : goto c6_r }
        flush chain ip t c1
        flush chain ip t c1_r
        flush chain ip t c2
        flush chain ip t c2_r
        delete chain ip t c1
        delete chain ip t c1_r
        delete chain ip t c2
        delete chain ip t c2_r
        delete set ip t s1
        delete set ip t s2
        delete set ip t s3
        delete set ip t s4
        delete set ip t s5
    "#]]
    .assert_eq(&state.transaction().unwrap());
    state.set_policy(Key::new("a", "p"), None);
    assert_eq!(state.transaction().unwrap(), table::removal(&config()), "no guarded pod, no table");
    assert_eq!(state.transaction(), None);
}

#[test]
fn an_address_told_by_the_kubelet_is_guarded_before_the_api_knows_it() {
    let mut state = small();
    state.set_policy(Key::new("a", "p"), Some(policy(json!({"podSelector": {}, "policyTypes": ["Ingress"]}))));
    state.full();
    let mut unborn = pod("10.2.1.20", "n1", "app=web");
    unborn.ips.clear();
    state.set_pod(Key::new("a", "new"), Some(unborn.clone()));
    assert_eq!(state.transaction(), None);
    state.tell_addresses(Key::new("a", "new"), vec![[10, 2, 1, 3].into()]);
    // The address was another pod's, whose end the API has not told yet.
    assert_eq!(state.transaction(), None, "the same chain, another owner");
    state.tell_addresses(Key::new("a", "new"), vec![[10, 2, 1, 20].into()]);
    assert!(state.transaction().unwrap().contains("add element ip t ingress { 10.2.1.20 : goto c2 }"));
    state.set_pod(Key::new("a", "new"), None);
    assert!(state.transaction().unwrap().contains("delete element ip t ingress { 10.2.1.20 }"));
}

mod histories {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Pod(Key, Option<PodView>),
        Namespace(String, Option<Labels>),
        Policy(Key, Option<PolicyView>),
        Commit,
    }

    fn label_set() -> impl Strategy<Value = String> {
        prop_oneof![Just(""), Just("app=web"), Just("app=db"), Just("app=web,tier=x")].prop_map(str::to_owned)
    }

    fn selector() -> impl Strategy<Value = Selector> {
        prop_oneof![Just(""), Just("app=web"), Just("app in (web,db)"), Just("!tier"), Just("tier"), Just("app!=web")]
            .prop_map(|text| Selector::parse(text).unwrap())
    }

    fn cidr() -> impl Strategy<Value = crate::routes::Cidr> {
        prop_oneof![
            Just("0.0.0.0/0"),
            Just("10.2.0.0/16"),
            Just("10.2.1.0/24"),
            Just("10.2.1.1/32"),
            Just("172.16.0.0/30"),
            Just("172.16.0.2/32")
        ]
        .prop_map(|text| parse_cidr(text).unwrap())
    }

    fn peer() -> impl Strategy<Value = Peer> {
        prop_oneof![
            (proptest::option::of(selector()), selector())
                .prop_map(|(namespaces, pods)| Peer::Pods { namespaces, pods }),
            (cidr(), proptest::collection::vec(cidr(), 0..3)).prop_map(|(cidr, except)| Peer::Block { cidr, except }),
        ]
    }

    fn port() -> impl Strategy<Value = Port> {
        let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
        let number = prop_oneof![
            Just(PortNumber::Range(0, u16::MAX)),
            Just(PortNumber::Range(80, 80)),
            Just(PortNumber::Range(79, 81)),
            Just(PortNumber::Range(53, 80)),
            Just(PortNumber::Named("web".to_owned())),
            Just(PortNumber::Named("dns".to_owned())),
        ];
        (protocol, number).prop_map(|(protocol, number)| Port { protocol, number })
    }

    fn rules() -> impl Strategy<Value = Option<Vec<Rule>>> {
        let rule = (
            proptest::option::of(proptest::collection::vec(peer(), 0..3)),
            proptest::option::of(proptest::collection::vec(port(), 0..3)),
        );
        proptest::option::of(proptest::collection::vec(rule.prop_map(|(peers, ports)| Rule { peers, ports }), 0..3))
    }

    fn key(kind: &'static str) -> impl Strategy<Value = Key> {
        (0..2u8, 0..4u8).prop_map(move |(ns, n)| Key::new(format!("ns{ns}"), format!("{kind}{n}")))
    }

    fn step() -> impl Strategy<Value = Step> {
        let view = (1..3u8, 1..5u8, label_set(), any::<bool>()).prop_map(|(node, ip, of, has_ip)| {
            let mut view = pod(&format!("10.2.{node}.{ip}"), &format!("n{node}"), &of);
            if of == "app=db" {
                view.ports = vec![("web".to_owned(), Protocol::Tcp, 81)];
            }
            if !has_ip && ip == 1 {
                view.ips.clear();
            }
            view
        });
        let policy =
            (selector(), rules(), rules()).prop_map(|(pods, egress, ingress)| PolicyView { pods, egress, ingress });
        prop_oneof![
            5 => (key("p"), proptest::option::weighted(0.8, view)).prop_map(|(key, view)| Step::Pod(key, view)),
            1 => (0..2u8, proptest::option::weighted(0.8, label_set()))
                .prop_map(|(n, of)| Step::Namespace(format!("ns{n}"), of.map(|of| labels(&of)))),
            4 => (key("q"), proptest::option::weighted(0.8, policy)).prop_map(|(key, policy)| Step::Policy(key, policy)),
            3 => Just(Step::Commit),
        ]
    }

    /// No two pods of a real node share an address: the newest keeps it.
    fn without_clashes(world: &mut World, state: &mut PolicyState, key: &Key, view: Option<&PodView>) {
        let Some(view) = view else { return };
        let clash = |(other, pod): &(&Key, &PodView)| *other != key && pod.ips.iter().any(|ip| view.ips.contains(ip));
        let losers: Vec<Key> = world.pods.iter().filter(clash).map(|(key, _)| key.clone()).collect();
        for loser in losers {
            world.pods.remove(&loser);
            state.set_pod(loser, None);
        }
    }

    fn apply(state: &mut PolicyState, world: &mut World, step: &Step) {
        match step.clone() {
            Step::Pod(key, view) => {
                without_clashes(world, state, &key, view.as_ref());
                match &view {
                    Some(view) => drop(world.pods.insert(key.clone(), view.clone())),
                    None => drop(world.pods.remove(&key)),
                }
                state.set_pod(key, view);
            }
            Step::Namespace(name, of) => {
                match &of {
                    Some(of) => drop(world.namespaces.insert(name.clone(), Arc::new(of.clone()))),
                    None => drop(world.namespaces.remove(&name)),
                }
                state.set_namespace(name, of);
            }
            Step::Policy(key, policy) => {
                match &policy {
                    Some(policy) => drop(world.policies.insert(key.clone(), policy.clone())),
                    None => drop(world.policies.remove(&key)),
                }
                state.set_policy(key, policy);
            }
            Step::Commit => {}
        }
    }

    /// What node n1 must say: each of its own pods is guarded, the other end is the other node's business.
    fn wanted(world: &World, connection: Connection) -> bool {
        let is_here = |ip: Ipv4Addr| world.pods.values().any(|pod| pod.node == "n1" && pod.ips.contains(&ip));
        let open = |direction, end| !is_here(end) || world.closed_by(direction, connection).is_none();
        connection.source == connection.destination
            || (open(Direction::Egress, connection.source) && open(Direction::Ingress, connection.destination))
    }

    fn agree(kernel: &Kernel, world: &World) -> Result<(), TestCaseError> {
        let pods = (1..3u8).flat_map(|node| (1..5u8).map(move |ip| [10, 2, node, ip]));
        let all: Vec<Ipv4Addr> = pods.chain([[172, 16, 0, 1], [172, 16, 0, 2], [8, 8, 8, 8]]).map(Into::into).collect();
        for source in &all {
            for destination in &all {
                for (protocol, port) in [
                    (Protocol::Tcp, 80),
                    (Protocol::Tcp, 81),
                    (Protocol::Udp, 53),
                    (Protocol::Sctp, 80),
                    (Protocol::Udp, 9),
                ] {
                    let connection = Connection { source: *source, destination: *destination, protocol, port };
                    let there = Packet {
                        source: *source,
                        destination: *destination,
                        protocol,
                        source_port: 40_000,
                        port,
                        reply: false,
                    };
                    let back = Packet {
                        source: *destination,
                        destination: *source,
                        protocol,
                        source_port: port,
                        port: 40_000,
                        reply: true,
                    };
                    let expected = wanted(world, connection);
                    prop_assert_eq!(kernel.passes(there), expected, "{:?}", connection);
                    prop_assert_eq!(kernel.passes(back), expected, "answers of {:?}", connection);
                }
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
        #[test]
        fn step_by_step_equals_from_scratch(steps in proptest::collection::vec(step(), 1..40)) {
            let (mut state, mut world, mut kernel) = (PolicyState::new(config()), World::default(), Kernel::default());
            for step in steps.iter().chain([&Step::Commit]) {
                apply(&mut state, &mut world, step);
                if matches!(step, Step::Commit) && let Some(script) = state.transaction() {
                    kernel.run(&script);
                }
            }
            agree(&kernel, &world)?;

            let mut fresh = PolicyState::new(config());
            for (key, policy) in &world.policies {
                fresh.set_policy(key.clone(), Some(policy.clone()));
            }
            for (key, view) in &world.pods {
                fresh.set_pod(key.clone(), Some(view.clone()));
            }
            for (name, of) in &world.namespaces {
                fresh.set_namespace(name.clone(), Some((**of).clone()));
            }
            let mut scratch = Kernel::default();
            scratch.run(&fresh.full());
            agree(&scratch, &world)?;
            let size = |kernel: &Kernel| {
                let mut sets: Vec<usize> = kernel.sets.values().map(std::collections::BTreeSet::len).collect();
                let mut chains: Vec<usize> = kernel.chains.values().map(Vec::len).collect();
                sets.sort_unstable();
                chains.sort_unstable();
                (sets, chains)
            };
            prop_assert_eq!(size(&kernel), size(&scratch), "nothing is left over");
            let mut full = Kernel::default();
            full.run(&state.full());
            prop_assert_eq!(full, kernel);
        }
    }
}
