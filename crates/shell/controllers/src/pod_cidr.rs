//! Gives nodes their pod CIDRs; all nodes are one key, so that no range is given out twice.

use std::sync::Arc;

use client::ObjectKey;
use reconcile::plan::NODES;
use reconcile::pod_cidr::{ClusterCidr, plan};

use crate::runner::Context;
use crate::sources::Nodes;

const NAME: &str = "node-ipam-controller";

pub(crate) fn start(context: &Context) {
    let mask = context.config.node_cidr_mask;
    let parsed: Result<Vec<_>, _> = context
        .config
        .cluster_cidrs
        .iter()
        // A node's share of an IPv6 network is a /64, as upstream has it.
        .map(|cidr| ClusterCidr::parse(cidr, if cidr.contains(':') { 64 } else { mask }))
        .collect();
    let cidrs = match parsed {
        Ok(cidrs) if cidrs.is_empty() => return,
        Ok(cidrs) => cidrs,
        Err(error) => {
            tracing::error!(%error, "no pod CIDRs are given out: correct the cluster CIDR");
            return;
        }
    };
    let (nodes, queue) = (context.hub.informer::<Nodes>(), context.queue());
    let wake = queue.clone();
    nodes.subscribe(move |_| wake.add(ObjectKey::default()));
    let writer = Arc::new(context.writer(NAME).track(NODES, &nodes));
    let synced = nodes.clone();
    context.work(NAME, &queue, async move { synced.synced().await }, move |_| {
        let known: Vec<_> = nodes.list().iter().map(|node| node.view.clone()).collect();
        let (plan, writer) = (plan(&cidrs, &known), writer.clone());
        async move {
            writer.apply(&plan).await?;
            Ok(None)
        }
    });
}
