//! The node's DNS server without a node: for benchmarks, which need no cluster.

use crate::dns::{Listener, Server};
use crate::forward::Forwarder;
use crate::upstreams::SharedUpstreams;
use crate::watch::{self, Change};
use kube::Client;
use netplan::dns::Zone;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_util::sync::CancellationToken;

/// Serves a zone that changes only with what `client` tells, if there is one; asks nobody for other names.
///
/// # Errors
/// The address is taken.
pub async fn serve_dns(
    address: SocketAddr,
    zone: Zone,
    client: Option<Client>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let zone = Arc::new(RwLock::new(zone));
    let learn = |change: Change| {
        let mut zone = zone.write().unwrap_or_else(PoisonError::into_inner);
        change.tell(&mut zone);
        std::future::ready(())
    };
    let follow = async {
        match client {
            Some(client) => {
                tokio::join!(watch::services(client.clone(), learn), watch::slices(client, learn));
            }
            None => std::future::pending().await,
        }
    };
    let listener = Listener::bind(address).await?;
    let nobody = PathBuf::from("/dev/null");
    let forwarder = Forwarder::new(nobody, vec![Ipv4Addr::LOCALHOST.into()], SharedUpstreams::default());
    let _end = stop.clone().drop_guard();
    // A task of its own, as on a node.
    let server = tokio::spawn(Server::new(zone.clone(), forwarder).run(listener, stop));
    tokio::select! {
        () = follow => Ok(()),
        ended = server => ended.map_err(std::io::Error::other),
    }
}
