//! Whether a user may: masters always, nodes by what their pods need, everybody by RBAC.

use access::{Attributes, Decision, node};
use async_trait::async_trait;

use super::Security;
use crate::config::Authorizer;

#[async_trait]
impl Authorizer for Security {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        self.decide(attributes)
    }
}

impl Security {
    /// The first authorizer that is sure decides; the reasons of those that are not are joined by line breaks.
    pub(super) fn decide(&self, asked: &Attributes) -> Decision {
        if asked.user.is_master() {
            return Decision::Allow { reason: String::new() };
        }
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(status) => return Decision::NoOpinion { reason: status.message },
        };
        let mut reasons = Vec::new();
        if node::node_name(&asked.user).is_some() {
            match self.indexes.nodes(&engine, |graph| node::authorize(graph, asked)) {
                Decision::NoOpinion { reason } => reasons.push(reason),
                sure => return sure,
            }
        }
        match self.indexes.rbac(&engine, |rbac| rbac.authorize(asked)) {
            Decision::NoOpinion { reason } => reasons.push(reason),
            sure => return sure,
        }
        reasons.retain(|reason| !reason.is_empty());
        Decision::NoOpinion { reason: reasons.join("\n") }
    }
}
