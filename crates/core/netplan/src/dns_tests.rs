//! Text in, text out for the DNS zone, and histories against their end.

use super::*;
use crate::text::{Line, parse};
use expect_test::{Expect, expect};

fn feed(zone: &mut Zone, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match parse(line) {
            Line::Service(key, view) => zone.set_service(key, Some(view)),
            Line::Slice(key, view) => zone.set_slice(key, Some(view)),
            Line::Gone(key) => {
                zone.set_service(key.clone(), None);
                zone.set_slice(key, None);
            }
        }
    }
}

fn kind(text: &str) -> Type {
    match text {
        "A" => Type::A,
        "AAAA" => Type::Aaaa,
        "SRV" => Type::Srv,
        "PTR" => Type::Ptr,
        "CNAME" => Type::Cname,
        "TXT" => Type::Txt,
        "SOA" => Type::Soa,
        "NS" => Type::Ns,
        "ANY" => Type::Any,
        _ => Type::Other,
    }
}

fn show(record: &Record) -> String {
    match &record.data {
        Data::Ip(ip) => ip.to_string(),
        Data::Srv { port, weight, target } => format!("{weight} {port} {target}"),
        Data::Ptr(name) | Data::Cname(name) | Data::Txt(name) | Data::Ns(name) => name.clone(),
        Data::Soa => "SOA".to_owned(),
    }
}

fn ask(zone: &Zone, question: &str) -> String {
    let (of, name) = question.split_once(' ').unwrap();
    match zone.query(name, kind(of)) {
        Answer::Records { answers, additional } => {
            let all: Vec<String> = answers.iter().map(show).collect();
            let glue: Vec<String> = additional.iter().map(|r| format!("{}={}", r.name, show(r))).collect();
            if glue.is_empty() { all.join(", ") } else { format!("{} (with {})", all.join(", "), glue.join(", ")) }
        }
        other => format!("{other:?}"),
    }
}

fn check(objects: &str, questions: &str, expected: Expect) {
    let mut zone = Zone::new("cluster.local", [10, 96, 0, 10].into());
    feed(&mut zone, objects);
    let lines = questions.lines().map(str::trim).filter(|line| !line.is_empty());
    expected.assert_eq(&lines.map(|line| format!("{line}: {}\n", ask(&zone, line))).collect::<String>());
}

const OBJECTS: &str = "
    service default/web 10.96.0.20,fd00::20 http/tcp/80 m/tcp/9090
    slice default/web-1 web http/tcp/8080 m/tcp/9090 : 10.200.1.3
    service db/pg None sql/tcp/5432
    slice db/pg-1 pg sql/tcp/15432 : pg-0=10.200.1.4 pg-1=10.200.2.5 10.200.2.6 late=10.200.2.7!unready
    slice db/pg-2 pg sql/tcp/15432 : fd00::4
    service db/empty None
    service out/ext ->Example.Test.";

#[test]
fn services_answer_as_the_specification_says() {
    check(
        OBJECTS,
        "A web.default.svc.cluster.local
         A WEB.Default.svc.cluster.LOCAL.
         AAAA web.default.svc.cluster.local
         TXT web.default.svc.cluster.local
         A pg.db.svc.cluster.local
         AAAA pg.db.svc.cluster.local
         A empty.db.svc.cluster.local
         A pg-0.pg.db.svc.cluster.local
         A 10-200-2-6.pg.db.svc.cluster.local
         A late.pg.db.svc.cluster.local
         A ext.out.svc.cluster.local
         CNAME ext.out.svc.cluster.local
         SRV _http._tcp.web.default.svc.cluster.local
         SRV _http._udp.web.default.svc.cluster.local
         SRV _sql._tcp.pg.db.svc.cluster.local
         SRV web.default.svc.cluster.local
         A _tcp.web.default.svc.cluster.local",
        expect![[r#"
            A web.default.svc.cluster.local: 10.96.0.20
            A WEB.Default.svc.cluster.LOCAL.: 10.96.0.20
            AAAA web.default.svc.cluster.local: fd00::20
            TXT web.default.svc.cluster.local: NoData
            A pg.db.svc.cluster.local: 10.200.1.4, 10.200.2.5, 10.200.2.6
            AAAA pg.db.svc.cluster.local: fd00::4
            A empty.db.svc.cluster.local: NoData
            A pg-0.pg.db.svc.cluster.local: 10.200.1.4
            A 10-200-2-6.pg.db.svc.cluster.local: 10.200.2.6
            A late.pg.db.svc.cluster.local: NoSuchName
            A ext.out.svc.cluster.local: example.test
            CNAME ext.out.svc.cluster.local: example.test
            SRV _http._tcp.web.default.svc.cluster.local: 100 80 web.default.svc.cluster.local (with web.default.svc.cluster.local=10.96.0.20, web.default.svc.cluster.local=fd00::20)
            SRV _http._udp.web.default.svc.cluster.local: NoSuchName
            SRV _sql._tcp.pg.db.svc.cluster.local: 25 15432 10-200-2-6.pg.db.svc.cluster.local, 25 15432 fd00--4.pg.db.svc.cluster.local, 25 15432 pg-0.pg.db.svc.cluster.local, 25 15432 pg-1.pg.db.svc.cluster.local (with 10-200-2-6.pg.db.svc.cluster.local=10.200.2.6, fd00--4.pg.db.svc.cluster.local=fd00::4, pg-0.pg.db.svc.cluster.local=10.200.1.4, pg-1.pg.db.svc.cluster.local=10.200.2.5)
            SRV web.default.svc.cluster.local: 50 80 web.default.svc.cluster.local, 50 9090 web.default.svc.cluster.local (with web.default.svc.cluster.local=10.96.0.20, web.default.svc.cluster.local=fd00::20)
            A _tcp.web.default.svc.cluster.local: NoData
        "#]],
    );
}

#[test]
fn other_names_exist_or_not() {
    check(
        OBJECTS,
        "A cluster.local
         SOA cluster.local
         NS cluster.local
         A ns.dns.cluster.local
         TXT dns-version.cluster.local
         A svc.cluster.local
         A default.svc.cluster.local
         A nowhere.svc.cluster.local
         A nothing.default.svc.cluster.local
         A a.b.web.default.svc.cluster.local
         A kubernetes.default
         A example.org
         A notcluster.local
         A 10-1-2-3.default.pod.cluster.local
         A fd00--4.default.pod.cluster.local
         AAAA fd00--4.default.pod.cluster.local
         A what.default.pod.cluster.local
         A 10-1-2-3.nowhere.pod.cluster.local
         PTR 20.0.96.10.in-addr.arpa
         A 20.0.96.10.in-addr.arpa
         PTR 4.1.200.10.in-addr.arpa
         PTR 6.2.200.10.in-addr.arpa
         PTR 3.1.200.10.in-addr.arpa
         PTR 0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
        expect![[r#"
            A cluster.local: NoData
            SOA cluster.local: SOA
            NS cluster.local: ns.dns.cluster.local
            A ns.dns.cluster.local: 10.96.0.10
            TXT dns-version.cluster.local: 1.1.0
            A svc.cluster.local: NoData
            A default.svc.cluster.local: NoData
            A nowhere.svc.cluster.local: NoSuchName
            A nothing.default.svc.cluster.local: NoSuchName
            A a.b.web.default.svc.cluster.local: NoSuchName
            A kubernetes.default: NotOurs
            A example.org: NotOurs
            A notcluster.local: NotOurs
            A 10-1-2-3.default.pod.cluster.local: 10.1.2.3
            A fd00--4.default.pod.cluster.local: NoData
            AAAA fd00--4.default.pod.cluster.local: fd00::4
            A what.default.pod.cluster.local: NoSuchName
            A 10-1-2-3.nowhere.pod.cluster.local: NoSuchName
            PTR 20.0.96.10.in-addr.arpa: web.default.svc.cluster.local
            A 20.0.96.10.in-addr.arpa: NoData
            PTR 4.1.200.10.in-addr.arpa: pg-0.pg.db.svc.cluster.local
            PTR 6.2.200.10.in-addr.arpa: 10-200-2-6.pg.db.svc.cluster.local
            PTR 3.1.200.10.in-addr.arpa: NotOurs
            PTR 0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa: web.default.svc.cluster.local
        "#]],
    );
}

#[test]
fn the_zone_follows_changes() {
    let more = "gone default/web\nslice db/pg-1 empty sql/tcp/1 : x=10.200.1.4\ngone out/ext";
    check(
        &format!("{OBJECTS}\n{more}"),
        "A web.default.svc.cluster.local
         A default.svc.cluster.local
         PTR 20.0.96.10.in-addr.arpa
         A pg.db.svc.cluster.local
         A empty.db.svc.cluster.local
         PTR 4.1.200.10.in-addr.arpa
         PTR 5.2.200.10.in-addr.arpa
         A ext.out.svc.cluster.local",
        expect![[r#"
            A web.default.svc.cluster.local: NoSuchName
            A default.svc.cluster.local: NoSuchName
            PTR 20.0.96.10.in-addr.arpa: NotOurs
            A pg.db.svc.cluster.local: NoData
            A empty.db.svc.cluster.local: 10.200.1.4
            PTR 4.1.200.10.in-addr.arpa: x.empty.db.svc.cluster.local
            PTR 5.2.200.10.in-addr.arpa: NotOurs
            A ext.out.svc.cluster.local: NoSuchName
        "#]],
    );
}

mod histories {
    use super::*;
    use proptest::prelude::*;

    fn line() -> impl Strategy<Value = String> {
        let frontend = prop_oneof![
            Just("None".to_owned()),
            (0..4u8).prop_map(|n| format!("10.96.0.{n}")),
            Just("->x.y".to_owned())
        ];
        let service = (0..3u8, 0..2u8, frontend).prop_map(|(n, ns, f)| format!("service ns{ns}/s{n} {f} p/tcp/80"));
        let endpoints = proptest::collection::vec((1..6u8, any::<bool>()), 0..4);
        let slice = (0..3u8, 0..3u8, 0..2u8, endpoints).prop_map(|(n, s, ns, endpoints)| {
            let show = |(ip, ready): &(u8, bool)| format!("10.200.0.{ip}{}", if *ready { "" } else { "!unready" });
            format!("slice ns{ns}/x{n} s{s} p/tcp/80 : {}", endpoints.iter().map(show).collect::<Vec<_>>().join(" "))
        });
        prop_oneof![
            service,
            slice,
            (0..3u8, 0..2u8).prop_map(|(n, ns)| format!("gone ns{ns}/s{n}")),
            (0..3u8, 0..2u8).prop_map(|(n, ns)| format!("gone ns{ns}/x{n}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
        #[test]
        fn step_by_step_equals_from_scratch(lines in proptest::collection::vec(line(), 1..40)) {
            let mut zone = Zone::new("c", [10, 96, 0, 10].into());
            feed(&mut zone, &lines.join("\n"));
            let mut fresh = Zone::new("c", [10, 96, 0, 10].into());
            for (owner, slices) in &zone.slices {
                for (name, slice) in slices {
                    fresh.set_slice(Key::new(owner.namespace.clone(), name.clone()), Some(slice.clone()));
                }
            }
            for (key, service) in &zone.services {
                fresh.set_service(key.clone(), Some(service.clone()));
            }
            prop_assert_eq!(&zone.namespaces, &fresh.namespaces);
            prop_assert_eq!(&zone.by_ip, &fresh.by_ip);
            prop_assert_eq!(&zone.slices, &fresh.slices);
            prop_assert_eq!(&zone.slice_owner, &fresh.slice_owner);
        }
    }
}
