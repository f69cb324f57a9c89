//! The cluster-wide `kube-dns` Service, by which users and tools find cluster DNS.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::PostParams;
use kube::{Api, Client};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Tries while namespace `kube-system` is not there yet, and the wait between them.
const ATTEMPTS_MAX: u32 = 150;
const WAIT: Duration = Duration::from_millis(200);

/// The Service. It has no selector: each node answers by itself, the service proxy leads to the node's own server.
pub fn dns_service(dns_ip: Ipv4Addr) -> Service {
    let port = |name: &str, protocol: &str| ServicePort {
        name: Some(name.to_owned()),
        port: 53,
        target_port: Some(IntOrString::Int(53)),
        protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    };
    let mut service = Service::default();
    service.metadata.name = Some("kube-dns".to_owned());
    service.metadata.namespace = Some("kube-system".to_owned());
    let labels =
        [("k8s-app", "kube-dns"), ("kubernetes.io/cluster-service", "true"), ("kubernetes.io/name", "CoreDNS")];
    service.metadata.labels = Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    service.spec = Some(ServiceSpec {
        cluster_ip: Some(dns_ip.to_string()),
        cluster_ips: Some(vec![dns_ip.to_string()]),
        ports: Some(vec![port("dns", "UDP"), port("dns-tcp", "TCP")]),
        ..ServiceSpec::default()
    });
    service
}

/// Creates the Service unless it exists. Called by the control plane at every start; waits for namespace `kube-system`.
pub async fn bootstrap(client: Client, dns_ip: Ipv4Addr) -> Result<(), kube::Error> {
    let services = Api::<Service>::namespaced(client, "kube-system");
    let service = dns_service(dns_ip);
    let mut attempt = 0;
    loop {
        attempt += 1;
        match services.create(&PostParams::default(), &service).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => return Ok(()),
            // An older server says 422 when the address is taken, also by our own earlier Service.
            Err(kube::Error::Api(status)) if status.code == 422 && services.get_opt("kube-dns").await?.is_some() => {
                return Ok(());
            }
            Err(kube::Error::Api(status))
                if attempt < ATTEMPTS_MAX && (status.is_not_found() || status.code >= 500) =>
            {
                tokio::time::sleep(WAIT).await;
            }
            Err(error) => return Err(error),
        }
    }
}
