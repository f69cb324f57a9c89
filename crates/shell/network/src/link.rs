//! The node's bridge, tunnel device and routes, by rtnetlink.

use crate::config::NetworkConfig;
use futures::TryStreamExt;
use netplan::routes::{Cidr, Plan, Way, contains, diff, tunnel_mac};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVxlan, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr};

/// Marks our routes in the kernel's table (a number no routing daemon uses).
const ROUTE_PROTOCOL: u8 = 116;
/// Bytes that VXLAN adds to a packet.
const VXLAN_HEADER: u32 = 50;
const MTU_DEFAULT: u32 = 1_500;

/// Why the kernel refused; all are worth another try.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct LinkError {
    what: String,
    source: rtnetlink::Error,
}

fn cannot(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let what = what.into();
    move |source| LinkError { what, source }
}

/// Exists already / does not exist any more: what was wanted is so.
fn unless(code: i32) -> impl Fn(rtnetlink::Error) -> Result<(), rtnetlink::Error> {
    move |error| match &error {
        rtnetlink::Error::NetlinkError(message) if message.raw_code() == -code => Ok(()),
        _ => Err(error),
    }
}

/// The interface that holds the node's address.
#[derive(Clone, Debug, Default)]
pub struct Uplink {
    /// Its networks, reachable without a router.
    pub on_link: Vec<Cidr>,
    /// Bytes of payload that pods may send through it in a tunnel.
    pub pod_mtu: u32,
}

/// The kernel's network configuration of this namespace.
pub struct Links {
    handle: Handle,
    config: NetworkConfig,
    /// The tunnel device, once there is a peer for it.
    tunnel: Option<u32>,
    applied: Plan,
}

impl Links {
    /// Opens a connection to the kernel in the calling thread's network namespace.
    pub fn open(config: NetworkConfig) -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle, config, tunnel: None, applied: Plan::new() })
    }

    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, LinkError> {
        let found = self.handle.link().get().match_name(name.to_owned()).execute().try_next().await;
        match found {
            Err(rtnetlink::Error::NetlinkError(message))
                if message.raw_code() == -(nix::errno::Errno::ENODEV as i32) =>
            {
                Ok(None)
            }
            other => other.map_err(cannot(format!("look for device {name}"))),
        }
    }

    /// Finds the interface with the node's address.
    pub async fn uplink(&self) -> Result<Uplink, LinkError> {
        let addresses = self.handle.address().get().execute();
        let all: Vec<_> = addresses.try_collect().await.map_err(cannot("list addresses"))?;
        let local = |message: &rtnetlink::packet_route::address::AddressMessage| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(ip)) => Some(*ip),
                _ => None,
            })
        };
        let own = all.iter().find(|message| local(message) == Some(self.config.node_ip));
        let Some(own) = own else { return Ok(Uplink { on_link: vec![], pod_mtu: MTU_DEFAULT - VXLAN_HEADER }) };
        let link = self.handle.link().get().match_index(own.header.index).execute().try_next().await;
        let link = link.map_err(cannot("read the node's interface"))?;
        let mtu = link.iter().flat_map(|link| &link.attributes).find_map(|attribute| match attribute {
            // Loopback and some virtual devices allow more than any wire.
            LinkAttribute::Mtu(mtu) => Some((*mtu).min(9_000)),
            _ => None,
        });
        let same = all.iter().filter(|message| message.header.index == own.header.index);
        let on_link = same.filter_map(|message| Some((local(message)?, message.header.prefix_len)));
        Ok(Uplink { on_link: on_link.collect(), pod_mtu: mtu.unwrap_or(MTU_DEFAULT) - VXLAN_HEADER })
    }

    /// Makes the pod bridge with the first address of `pod_cidr` and nothing else of the pod network on it.
    pub async fn bridge(&self, pod_cidr: Cidr, mtu: u32) -> Result<Ipv4Addr, LinkError> {
        let name = &self.config.bridge;
        let gateway = Ipv4Addr::from(u32::from(pod_cidr.0) + 1);
        if self.find(name).await?.is_none() {
            // A fixed MAC: otherwise the bridge takes that of its newest port and neighbours lose it with the pod.
            let [a, b, c, d] = gateway.octets();
            let message = LinkBridge::new(name).address(vec![0x0a, 0x58, a, b, c, d]).mtu(mtu).build();
            let added = self.handle.link().add(message).execute().await;
            added.or_else(unless(nix::errno::Errno::EEXIST as i32)).map_err(cannot(format!("add bridge {name}")))?;
        }
        let index = self.find(name).await?.map_or(0, |link| link.header.index);
        self.only_address(index, gateway, pod_cidr.1).await?;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().change(up).execute().await.map_err(cannot(format!("bring up {name}")))?;
        // The node's own processes need some route to a cluster IP before its translation; a machine may have no default.
        let route = Self::route(self.config.service_cidr).output_interface(index).scope(RouteScope::Link).build();
        self.handle.route().add(route).replace().execute().await.map_err(cannot("route the service network"))?;
        Ok(gateway)
    }

    async fn only_address(&self, index: u32, ip: Ipv4Addr, prefix: u8) -> Result<(), LinkError> {
        let all: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(cannot("list addresses"))?;
        for message in all.into_iter().filter(|m| m.header.index == index && m.header.family == AddressFamily::Inet) {
            let is =
                message.attributes.contains(&AddressAttribute::Local(ip.into())) && message.header.prefix_len == prefix;
            if !is {
                self.handle.address().del(message).execute().await.map_err(cannot("remove an old address"))?;
            }
        }
        let add = self.handle.address().add(index, ip.into(), prefix).execute().await;
        add.or_else(unless(nix::errno::Errno::EEXIST as i32)).map_err(cannot(format!("add address {ip}/{prefix}")))
    }

    /// Makes the next call write every route again.
    pub fn forget_applied(&mut self) {
        self.applied.clear();
    }

    /// Brings routes and tunnel entries to `plan`. The first call also removes what an earlier run left.
    pub async fn routes(&mut self, plan: &Plan, own: Option<Cidr>, first: bool) -> Result<(), LinkError> {
        if first {
            self.forget_old_routes(plan).await?;
        }
        let (gone, new) = diff(&self.applied, plan);
        for (cidr, way) in gone {
            self.remove(cidr, way, plan).await?;
            self.applied.remove(&cidr);
        }
        for (cidr, way) in new {
            self.set(cidr, way, own).await?;
            self.applied.insert(cidr, way);
        }
        Ok(())
    }

    fn route((ip, prefix): Cidr) -> RouteMessageBuilder<Ipv4Addr> {
        let builder = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip, prefix);
        builder.protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
    }

    async fn set(&mut self, cidr: Cidr, way: Way, own: Option<Cidr>) -> Result<(), LinkError> {
        let message = match way {
            Way::Gateway(peer) => Self::route(cidr).gateway(peer).build(),
            Way::Vxlan(peer) => {
                let tunnel = self.tunnel(own).await?;
                let mac = tunnel_mac(peer);
                let what = || cannot(format!("enter peer {peer} into the tunnel"));
                let neighbours = self.handle.neighbours();
                let neighbour = neighbours.add(tunnel, cidr.0.into()).link_layer_address(&mac);
                neighbour.state(NeighbourState::Permanent).replace().execute().await.map_err(what())?;
                let entry = neighbours.add_bridge(tunnel, &mac).destination(peer.into()).flags(NeighbourFlags::Own);
                entry.replace().execute().await.map_err(what())?;
                Self::route(cidr).gateway(cidr.0).output_interface(tunnel).onlink().build()
            }
        };
        let what = cannot(format!("route {}/{} by {way:?}", cidr.0, cidr.1));
        self.handle.route().add(message).replace().execute().await.map_err(what)
    }

    async fn remove(&self, cidr: Cidr, way: Way, plan: &Plan) -> Result<(), LinkError> {
        let what = || cannot(format!("remove the route to {}/{}", cidr.0, cidr.1));
        let gone = self.handle.route().del(Self::route(cidr).build()).execute().await;
        gone.or_else(unless(nix::errno::Errno::ESRCH as i32)).map_err(what())?;
        let (Way::Vxlan(peer), Some(tunnel)) = (way, self.tunnel) else { return Ok(()) };
        let mut neighbours = vec![];
        if !plan.values().any(|kept| *kept == way) {
            let entry = self.handle.neighbours().add_bridge(tunnel, &tunnel_mac(peer)).flags(NeighbourFlags::Own);
            neighbours.push(entry.destination(peer.into()).message_mut().clone());
        }
        neighbours.push(self.handle.neighbours().add(tunnel, cidr.0.into()).message_mut().clone());
        for message in neighbours {
            let gone = self.handle.neighbours().del(message).execute().await;
            gone.or_else(unless(nix::errno::Errno::ENOENT as i32)).map_err(what())?;
        }
        Ok(())
    }

    /// The tunnel device, made when the first peer needs it.
    async fn tunnel(&mut self, own: Option<Cidr>) -> Result<u32, LinkError> {
        if let Some(index) = self.tunnel {
            return Ok(index);
        }
        let config = &self.config;
        let name = &config.vxlan_device;
        if let Some(old) = self.find(name).await? {
            // Its parameters may differ from today's: made anew rather than compared.
            let gone = self.handle.link().del(old.header.index).execute().await;
            gone.map_err(cannot(format!("remove the old device {name}")))?;
        }
        let link = LinkVxlan::new(name, config.vxlan_id).port(config.vxlan_port).learning(false);
        let link = link.append_info_data(rtnetlink::packet_route::link::InfoVxlan::Local(config.node_ip));
        let uplink = self.uplink().await?;
        let message = link.address(tunnel_mac(config.node_ip).to_vec()).mtu(uplink.pod_mtu).build();
        self.handle.link().add(message).execute().await.map_err(cannot(format!("add VXLAN device {name}")))?;
        let index = self.find(name).await?.map_or(0, |link| link.header.index);
        if let Some((network, _)) = own {
            self.only_address(index, network, 32).await?;
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().change(up).execute().await.map_err(cannot(format!("bring up {name}")))?;
        self.tunnel = Some(index);
        Ok(index)
    }

    async fn our_routes(&self) -> Result<Vec<(Cidr, RouteMessage)>, LinkError> {
        let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let all: Vec<RouteMessage> =
            self.handle.route().get(query).execute().try_collect().await.map_err(cannot("list routes"))?;
        let ours = all.into_iter().filter(|route| route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL));
        let with_cidr = ours.filter_map(|route| {
            let destination = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(*ip),
                _ => None,
            })?;
            Some(((destination, route.header.destination_prefix_length), route))
        });
        // Another cluster on this machine has routes of the same kind outside our pod network.
        Ok(with_cidr.filter(|((ip, _), _)| contains(self.config.cluster_cidr, *ip)).collect())
    }

    async fn forget_old_routes(&self, plan: &Plan) -> Result<(), LinkError> {
        for (cidr, route) in self.our_routes().await? {
            if !plan.contains_key(&cidr) {
                let gone = self.handle.route().del(route).execute().await;
                gone.or_else(unless(nix::errno::Errno::ESRCH as i32)).map_err(cannot("remove an old route"))?;
            }
        }
        Ok(())
    }

    /// Removes routes, tunnel and bridge.
    pub async fn cleanup(&self) -> Result<(), LinkError> {
        self.forget_old_routes(&Plan::new()).await?;
        for name in [&self.config.vxlan_device, &self.config.bridge] {
            if let Some(link) = self.find(name).await? {
                let gone = self.handle.link().del(link.header.index).execute().await;
                gone.or_else(unless(nix::errno::Errno::ENODEV as i32))
                    .map_err(cannot(format!("remove device {name}")))?;
            }
        }
        Ok(())
    }
}
