//! The garbage collector's graph: who owns whom by uid, and what an object's owners mean for it.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

/// One object: metadata only, and of that only what ownership needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Member {
    /// Index of the object's resource in the shell's table.
    pub resource: usize,
    pub namespace: String,
    pub name: String,
    pub resource_version: String,
    pub deleting: bool,
    pub finalizers: Vec<String>,
    pub owners: Vec<OwnerReference>,
}

impl Member {
    pub fn new(resource: usize, meta: ObjectMeta) -> Self {
        Self {
            resource,
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.unwrap_or_default(),
            owners: meta.owner_references.unwrap_or_default(),
        }
    }

    fn holds(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|held| held == finalizer)
    }

    /// It is deleted only after its blocking dependents.
    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.holds(FOREGROUND)
    }
}

/// What to do about one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Nothing,
    /// Ask the API whether these owners exist, then decide again.
    Verify(Vec<OwnerReference>),
    /// Merge patches by uid of the object; applied in order.
    Patch(Vec<(String, Value)>),
    /// Delete the object with this propagation policy.
    Delete {
        propagation: &'static str,
    },
    /// Delete these dependents in the foreground; look again when they go.
    DeleteDependents(Vec<String>),
}

/// All objects that were seen, with the reverse of their owner references.
#[derive(Debug, Default)]
pub struct Graph {
    members: HashMap<String, Member>,
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Member> {
        self.members.get(uid)
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes in an object as it is now; answers the uids to decide about.
    pub fn put(&mut self, uid: &str, member: Member) -> Vec<String> {
        let old = self.members.get(uid);
        let began_to_wait = member.waits_for_dependents() && !old.is_some_and(Member::waits_for_dependents);
        let mut wake = Vec::new();
        if !member.owners.is_empty() && old.is_none_or(|old| old.owners != member.owners)
            || member.deleting && (member.holds(ORPHAN) || member.holds(FOREGROUND))
        {
            wake.push(uid.to_owned());
        }
        if began_to_wait {
            wake.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        }
        let former: Vec<String> = old.map(|old| uids(&old.owners)).unwrap_or_default();
        let present = uids(&member.owners);
        for owner in former.iter().filter(|owner| !present.contains(owner)) {
            self.unlink(owner, uid);
            // A released dependent may have been the last that its owner waited for.
            wake.push(owner.clone());
        }
        for owner in present {
            self.dependents.entry(owner).or_default().insert(uid.to_owned());
        }
        self.members.insert(uid.to_owned(), member);
        wake
    }

    /// Forgets a deleted object; answers the uids to decide about: its dependents and its owners.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(old) = self.members.remove(uid) else { return Vec::new() };
        let owners = uids(&old.owners);
        for owner in &owners {
            self.unlink(owner, uid);
        }
        self.dependents.get(uid).into_iter().flatten().cloned().chain(owners).collect()
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(known) = self.dependents.get_mut(owner) {
            known.remove(dependent);
            if known.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    fn dependents_of<'a>(&'a self, uid: &str) -> impl Iterator<Item = (&'a String, &'a Member)> {
        let known = self.dependents.get(uid).into_iter().flatten();
        known.filter_map(|uid| self.members.get_key_value(uid))
    }

    /// What to do about an object; `verified` holds what live reads said of owners that the graph lacks: true, exists.
    pub fn decide(&self, uid: &str, verified: &HashMap<String, bool>) -> Action {
        let Some(member) = self.members.get(uid) else { return Action::Nothing };
        if member.deleting && member.holds(ORPHAN) {
            return self.orphan(uid, member);
        }
        if member.waits_for_dependents() {
            return self.advance_foreground(uid, member);
        }
        if member.deleting || member.owners.is_empty() {
            return Action::Nothing;
        }
        self.judge_owners(uid, member, verified)
    }

    /// Dependents lose their reference first; when none is left, the finalizer goes.
    fn orphan(&self, uid: &str, member: &Member) -> Action {
        let mut patches: Vec<(String, Value)> = self
            .dependents_of(uid)
            .map(|(dependent, known)| (dependent.clone(), without_owners(dependent, known, &|owner| owner.uid == uid)))
            .collect();
        patches.push((uid.to_owned(), without_finalizer(uid, member, ORPHAN)));
        Action::Patch(patches)
    }

    fn advance_foreground(&self, uid: &str, member: &Member) -> Action {
        let blocks = |known: &Member| {
            known.owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
        };
        // In a ring everyone waits for everyone: who closes it lets go, and the others follow.
        let waits = |known: &Member| known.waits_for_dependents();
        if !self.dependents_of(uid).any(|(held, known)| blocks(known) && !(waits(known) && self.waits_for(held, uid))) {
            return Action::Patch(vec![(uid.to_owned(), without_finalizer(uid, member, FOREGROUND))]);
        }
        // A dependent with another living owner is only released, which its own decision does.
        let due = self
            .dependents_of(uid)
            .filter(|(_, known)| !known.deleting && known.owners.iter().all(|owner| owner.uid == uid));
        let mut due: Vec<String> = due.map(|(dependent, _)| dependent.clone()).collect();
        due.sort();
        if due.is_empty() { Action::Nothing } else { Action::DeleteDependents(due) }
    }

    /// Whether a waiting object waits for `target`, directly or through others that wait.
    fn waits_for(&self, uid: &str, target: &str) -> bool {
        let (mut seen, mut open) = (HashSet::from([uid]), vec![uid]);
        while let Some(next) = open.pop() {
            for (dependent, known) in self.dependents_of(next) {
                if dependent == target {
                    return true;
                }
                if known.waits_for_dependents() && seen.insert(dependent) {
                    open.push(dependent);
                }
            }
        }
        false
    }

    fn judge_owners(&self, uid: &str, member: &Member, verified: &HashMap<String, bool>) -> Action {
        let (mut solid, mut gone, mut waiting, mut unknown) = (0, Vec::new(), Vec::new(), Vec::new());
        for owner in &member.owners {
            match self.members.get(&owner.uid) {
                // A namespaced owner is looked for in the dependent's own namespace only.
                Some(known) if !known.namespace.is_empty() && known.namespace != member.namespace => {
                    gone.push(owner.uid.clone());
                }
                Some(known) if known.waits_for_dependents() && owner.block_owner_deletion == Some(true) => {
                    waiting.push(owner.uid.clone());
                }
                Some(_) => solid += 1,
                None => match verified.get(&owner.uid) {
                    None => unknown.push(owner.clone()),
                    Some(true) => solid += 1,
                    Some(false) => gone.push(owner.uid.clone()),
                },
            }
        }
        if !unknown.is_empty() {
            return Action::Verify(unknown);
        }
        if solid > 0 {
            gone.extend(waiting);
            if gone.is_empty() {
                return Action::Nothing;
            }
            let patch = without_owners(uid, member, &|owner| gone.contains(&owner.uid));
            return Action::Patch(vec![(uid.to_owned(), patch)]);
        }
        let has_dependents = self.dependents_of(uid).next().is_some();
        let propagation = if !waiting.is_empty() && has_dependents || member.holds(FOREGROUND) {
            "Foreground"
        } else if member.holds(ORPHAN) {
            "Orphan"
        } else {
            "Background"
        };
        Action::Delete { propagation }
    }
}

fn uids(owners: &[OwnerReference]) -> Vec<String> {
    owners.iter().map(|owner| owner.uid.clone()).collect()
}

fn without_owners(uid: &str, member: &Member, drop: &dyn Fn(&OwnerReference) -> bool) -> Value {
    let kept: Vec<&OwnerReference> = member.owners.iter().filter(|owner| !drop(owner)).collect();
    json!({ "metadata": { "uid": uid, "resourceVersion": member.resource_version, "ownerReferences": kept } })
}

fn without_finalizer(uid: &str, member: &Member, finalizer: &str) -> Value {
    let kept: Vec<&String> = member.finalizers.iter().filter(|held| *held != finalizer).collect();
    json!({ "metadata": { "uid": uid, "resourceVersion": member.resource_version, "finalizers": kept } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str) -> OwnerReference {
        OwnerReference { uid: uid.into(), name: uid.into(), block_owner_deletion: Some(true), ..Default::default() }
    }

    /// `child<a,b` owned by a and b; a leading `-` marks it deleting, `+orphan` and `+foregroundDeletion` finalizers.
    fn graph(objects: &str) -> Graph {
        let mut graph = Graph::default();
        for text in objects.split_whitespace() {
            let (head, owners) = text.split_once('<').unwrap_or((text, ""));
            let mut parts = head.trim_start_matches('-').split('+');
            let name = parts.next().unwrap();
            let member = Member {
                name: name.into(),
                namespace: "ns".into(),
                deleting: head.starts_with('-'),
                finalizers: parts.map(str::to_owned).collect(),
                owners: owners.split(',').filter(|o| !o.is_empty()).map(owner).collect(),
                ..Member::default()
            };
            graph.put(name, member);
        }
        graph
    }

    #[test]
    fn decisions() {
        let check = |objects: &str, uid: &str, absent: &[&str], expected: &str| {
            let verified = absent.iter().map(|uid| ((*uid).to_owned(), false)).collect();
            let text = match graph(objects).decide(uid, &verified) {
                Action::Nothing => "nothing".to_owned(),
                Action::Verify(owners) => format!("verify {}", uids(&owners).join(",")),
                Action::Delete { propagation } => format!("delete {propagation}"),
                Action::DeleteDependents(uids) => format!("delete dependents {}", uids.join(",")),
                Action::Patch(patches) => {
                    let show = |(uid, body): &(String, Value)| {
                        let owners = body["metadata"]["ownerReferences"].as_array();
                        let kept = owners.map(|o| o.iter().filter_map(|o| o["uid"].as_str()).collect::<Vec<_>>());
                        match kept {
                            Some(kept) => format!("{uid}<{}", kept.join(",")),
                            None => format!("{uid}{}", body["metadata"]["finalizers"]),
                        }
                    };
                    format!("patch {}", patches.iter().map(show).collect::<Vec<_>>().join(" "))
                }
            };
            assert_eq!(text, expected, "{objects} {uid}");
        };
        check("a b<a", "b", &[], "nothing");
        check("b<a", "b", &[], "verify a");
        check("b<a", "b", &["a"], "delete Background");
        check("a b<a,x", "b", &["x"], "patch b<a");
        check("-a+orphan b<a,c c", "a", &[], "patch b<c a[]");
        check("-a+foregroundDeletion b<a", "a", &[], "delete dependents b");
        check("-a+foregroundDeletion", "a", &[], "patch a[]");
        check("-a+foregroundDeletion b<a,c c", "b", &[], "patch b<c");
        check("-a+foregroundDeletion b<a", "b", &[], "delete Background");
        check("-a+foregroundDeletion b<a d<b", "b", &[], "delete Foreground");
        check("-a b<a", "b", &[], "nothing");
        let ring = "-a+foregroundDeletion<c -b+foregroundDeletion<a -c+foregroundDeletion<b";
        check(ring, "c", &[], "patch c[]");
        check(&format!("{ring} d<c"), "c", &[], "delete dependents d");
        check("-a+foregroundDeletion<b -b+foregroundDeletion<a", "a", &[], "patch a[]");
        check("-a+foregroundDeletion<c -b+foregroundDeletion<a c<b", "a", &[], "nothing");
        check("a<c b<a c<b", "a", &[], "nothing");
    }

    #[test]
    fn removal_wakes_dependents_and_owners() {
        let mut graph = graph("a b<a c<b");
        let mut woken = graph.remove("b");
        woken.sort();
        assert_eq!(woken, ["a", "c"]);
    }
}
