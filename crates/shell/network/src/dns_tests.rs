//! The DNS server over real sockets on loopback.

use super::*;
use netplan::view::{EndpointView, Frontend, Key, Protocol, ServicePort, ServiceView, SliceView};

fn zone() -> SharedZone {
    let mut zone = Zone::new("cluster.local", [10, 96, 0, 10].into());
    let service = |frontend| ServiceView {
        frontend,
        ports: vec![ServicePort { name: "http".to_owned(), protocol: Protocol::Tcp, port: 80, node_port: 0 }],
        external_ips: Default::default(),
        load_balancer_ips: Default::default(),
        source_ranges: Default::default(),
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
        health_check_port: 0,
        other_proxy: false,
    };
    zone.set_service(Key::new("default", "web"), Some(service(Frontend::Cluster(vec![[10, 96, 0, 20].into()]))));
    zone.set_service(Key::new("default", "many"), Some(service(Frontend::Headless)));
    zone.set_service(Key::new("default", "out"), Some(service(Frontend::External("www.example.test".to_owned()))));
    let endpoints = (0..100u8).map(|n| EndpointView {
        addresses: vec![format!("10.200.0.{n}")],
        ready: true,
        ..EndpointView::default()
    });
    let owner = Key::new("default", "many");
    let slice =
        SliceView { service: owner, ipv6: false, not_proxied: true, ports: vec![], endpoints: endpoints.collect() };
    zone.set_slice(Key::new("default", "many-1"), Some(slice));
    Arc::new(RwLock::new(zone))
}

async fn start(zone: SharedZone, forwarder: Forwarder) -> (SocketAddr, CancellationToken) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, stop) = (listener.address().unwrap(), CancellationToken::new());
    tokio::spawn(Server::new(zone, forwarder).run(listener, stop.clone()));
    (address, stop)
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType, tcp: bool) -> Message {
    let mut request = Message::query();
    request.metadata.id = 7;
    request.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let bytes = request.to_vec().unwrap();
    if tcp {
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_u16(bytes.len() as u16).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        return Message::from_vec(&answer).unwrap();
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&bytes, server).await.unwrap();
    let mut buffer = [0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

fn show(message: &Message) -> String {
    let mut all: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
    all.sort();
    format!(
        "{:?} {}{}",
        message.metadata.response_code,
        all.join(" "),
        if message.metadata.truncation { " cut" } else { "" }
    )
}

#[tokio::test]
async fn cluster_names_are_answered_over_udp_and_tcp() {
    let (server, stop) = start(zone(), Forwarder::with_resolvers(vec![])).await;
    for tcp in [false, true] {
        let web = ask(server, "Web.default.svc.cluster.local.", RecordType::A, tcp).await;
        assert_eq!(show(&web), "NoError 10.96.0.20");
        assert!(web.metadata.authoritative && web.metadata.recursion_available);
        let none = ask(server, "nope.default.svc.cluster.local.", RecordType::A, tcp).await;
        assert_eq!((show(&none), none.authorities.len()), ("NXDomain ".to_owned(), 1));
        let other = ask(server, "web.default.svc.cluster.local.", RecordType::AAAA, tcp).await;
        assert_eq!(show(&other), "NoError ");
        let srv = ask(server, "_http._tcp.web.default.svc.cluster.local.", RecordType::SRV, tcp).await;
        assert_eq!(show(&srv), "NoError 0 100 80 web.default.svc.cluster.local.");
        assert_eq!(show(&ask(server, "example.test.", RecordType::A, tcp).await), "ServFail ");
    }
    assert_eq!(show(&ask(server, "many.default.svc.cluster.local.", RecordType::A, false).await), "NoError  cut");
    assert_eq!(ask(server, "many.default.svc.cluster.local.", RecordType::A, true).await.answers.len(), 100);
    stop.cancel();
}

#[tokio::test]
async fn other_names_are_forwarded_and_remembered_for_a_while() {
    let mut upstream_zone = Zone::new("test", [127, 0, 0, 1].into());
    let web = netplan::view::ServiceView { frontend: Frontend::Cluster(vec![[9, 9, 9, 9].into()]), ..some_view() };
    upstream_zone.set_service(Key::new("d", "w"), Some(web));
    let upstream_zone = Arc::new(RwLock::new(upstream_zone));
    let (upstream, stop_upstream) = start(upstream_zone.clone(), Forwarder::with_resolvers(vec![])).await;
    let cluster = zone();
    let alias = ServiceView { frontend: Frontend::External("w.d.svc.test".to_owned()), ..some_view() };
    cluster.write().unwrap().set_service(Key::new("default", "alias"), Some(alias));
    let (server, stop) = start(cluster, Forwarder::with_resolvers(vec![upstream])).await;
    for tcp in [false, true] {
        assert_eq!(show(&ask(server, "w.d.svc.test.", RecordType::A, tcp).await), "NoError 9.9.9.9");
        assert_eq!(show(&ask(server, "gone.d.svc.test.", RecordType::A, tcp).await), "NXDomain ");
        let alias = ask(server, "alias.default.svc.cluster.local.", RecordType::A, tcp).await;
        assert_eq!(show(&alias), "NoError 9.9.9.9 w.d.svc.test.");
    }
    // The resolver forgets; the cache does not, not yet.
    upstream_zone.write().unwrap().set_service(Key::new("d", "w"), None);
    assert_eq!(show(&ask(server, "w.d.svc.test.", RecordType::A, false).await), "NoError 9.9.9.9");
    stop.cancel();
    stop_upstream.cancel();
}

#[tokio::test]
async fn stub_domains_and_upstreams_follow_their_configuration() {
    let upstream = |ip: [u8; 4]| {
        let mut zone = Zone::new("acme.test", [127, 0, 0, 1].into());
        zone.set_service(
            Key::new("d", "w"),
            Some(ServiceView { frontend: Frontend::Cluster(vec![ip.into()]), ..some_view() }),
        );
        start(Arc::new(RwLock::new(zone)), Forwarder::with_resolvers(vec![]))
    };
    let ((first, stop_first), (second, stop_second)) = (upstream([1, 1, 1, 1]).await, upstream([2, 2, 2, 2]).await);
    let upstreams = crate::upstreams::SharedUpstreams::default();
    let forwarder = Forwarder::new("/nonexistent".into(), vec![], upstreams.clone());
    let (server, stop) = start(zone(), forwarder).await;
    let name = "w.d.svc.acme.test.";
    assert_eq!(show(&ask(server, name, RecordType::A, false).await), "ServFail ");
    let stub =
        |address| crate::upstreams::Upstreams { stubs: [("acme.test".to_owned(), vec![address])].into(), others: None };
    upstreams.set(stub(first));
    assert_eq!(show(&ask(server, name, RecordType::A, false).await), "NoError 1.1.1.1");
    upstreams.set(stub(second));
    assert_eq!(
        show(&ask(server, name, RecordType::A, false).await),
        "NoError 2.2.2.2",
        "nothing of the past is remembered"
    );
    assert_eq!(show(&ask(server, "w.d.svc.other.test.", RecordType::A, false).await), "ServFail ");
    assert_eq!(show(&ask(server, "web.default.svc.cluster.local.", RecordType::A, false).await), "NoError 10.96.0.20");
    for token in [stop, stop_first, stop_second] {
        token.cancel();
    }
}

fn some_view() -> ServiceView {
    ServiceView {
        frontend: Frontend::Pending,
        ports: vec![],
        external_ips: Default::default(),
        load_balancer_ips: Default::default(),
        source_ranges: Default::default(),
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
        health_check_port: 0,
        other_proxy: false,
    }
}

#[tokio::test]
async fn a_remembered_answer_ends_with_the_next_change() {
    let zone = zone();
    let (server, _stop) = start(zone.clone(), Forwarder::with_resolvers(vec![])).await;
    let web = || ask(server, "web.default.svc.cluster.local.", RecordType::A, false);
    for _ in 0..2 {
        assert_eq!(show(&web().await), "NoError 10.96.0.20");
    }
    zone.write().unwrap().set_service(Key::new("default", "web"), None);
    for _ in 0..2 {
        assert_eq!(show(&web().await), "NXDomain ");
    }
}
