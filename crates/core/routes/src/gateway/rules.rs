//! One rule of an HTTPRoute into conditions and an action.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use regex::{Regex, RegexBuilder};

use super::objects::{
    BackendRef, Filter, Grant, HeaderModifier, HttpRoute, NameValue, PathModifier, PathValue, Reference, RouteMatch,
    Rule, is_granted,
};
use crate::endpoints::Resolver;
use crate::filter::{Filters, HeaderEdit, PathEdit, Redirect, Rewrite};
use crate::path::PathMatch;
use crate::settings::{Limits, Settings};
use crate::table::{Action, Backend, Condition, TextMatch, Unusable, Weighted};
use crate::view::PortRef;

/// A compiled expression takes no more memory than this.
const REGEX_BYTES_MAX: usize = 64 << 10;

/// Why a route is not as it should be: reason and message of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub reason: &'static str,
    pub message: String,
}

/// What came of a rule.
pub struct CompiledRule {
    pub conditions: Vec<Condition>,
    pub action: Arc<Action>,
}

/// What was found wrong with the rules of a route.
#[derive(Debug, Default)]
pub struct Flaws {
    /// A value that is not supported: the rule is not served.
    pub accepted: Option<Flaw>,
    /// A reference that leads nowhere; requests are answered with 500.
    pub references: Option<Flaw>,
}

impl Flaws {
    fn unsupported(&mut self, message: impl Into<String>) {
        self.accepted.get_or_insert(Flaw { reason: "UnsupportedValue", message: message.into() });
    }

    fn reference(&mut self, reason: &'static str, message: impl Into<String>) {
        self.references.get_or_insert(Flaw { reason, message: message.into() });
    }
}

/// Everything that a rule is compiled with.
pub struct Context<'a, 'm, 'r> {
    pub route: &'a HttpRoute,
    pub grants: &'m [&'m Grant],
    pub settings: &'m Settings,
    pub resolver: &'m mut Resolver<'r>,
}

impl Context<'_, '_, '_> {
    /// Compiles the rules of a route; a rule with an unsupported value is left out.
    pub fn rules(&mut self) -> (Vec<CompiledRule>, Flaws) {
        let mut flaws = Flaws::default();
        let one = [Rule::default()];
        let rules = self.route.spec.rules.clone().unwrap_or_else(|| one.to_vec());
        let compiled = rules.iter().filter_map(|rule| self.rule(rule, &mut flaws)).collect();
        (compiled, flaws)
    }

    fn rule(&mut self, rule: &Rule, flaws: &mut Flaws) -> Option<CompiledRule> {
        let any = [RouteMatch::default()];
        let matches = rule.matches.as_deref().filter(|matches| !matches.is_empty()).unwrap_or(&any);
        let conditions = matches.iter().map(|wanted| condition(wanted).map_err(|error| flaws.unsupported(error)));
        let conditions: Vec<Condition> = conditions.collect::<Result<_, ()>>().ok()?;
        let filters = filters(&rule.filters, flaws)?;
        let mut backends = Vec::new();
        for backend in &rule.backend_refs {
            backends.push(self.weighted(backend, flaws)?);
        }
        let mut limits = Limits::of(self.settings);
        if let Some(timeouts) = &rule.timeouts {
            let read = |text: &Option<String>, flaws: &mut Flaws| match text.as_deref().map(duration) {
                None => Some(None),
                Some(Some(time)) => Some(Some(time)),
                Some(None) => {
                    flaws.unsupported("a timeout is no duration");
                    None
                }
            };
            // Zero switches a timeout off.
            limits.whole = read(&timeouts.request, flaws)?.filter(|time| !time.is_zero());
            if let Some(time) = read(&timeouts.backend_request, flaws)?.filter(|time| !time.is_zero()) {
                limits.answer = time;
            }
        }
        let action = Action {
            source: format!("HTTPRoute {}", self.route.key).into(),
            filters,
            backends,
            limits,
            unusable_status: 500,
            ssl_redirect: false,
        };
        Some(CompiledRule { conditions, action: Arc::new(action) })
    }

    fn weighted(&mut self, backend: &BackendRef, flaws: &mut Flaws) -> Option<Weighted> {
        let filters = filters(&backend.filters, flaws)?;
        if filters.redirect.is_some() {
            flaws.unsupported("a redirect belongs to a rule, not to a backend");
            return None;
        }
        let weight = u32::try_from(backend.weight.unwrap_or(1)).unwrap_or(0);
        Some(Weighted { weight, backend: self.backend(&backend.to, flaws), filters })
    }

    fn backend(&mut self, to: &Reference, flaws: &mut Flaws) -> Arc<Backend> {
        let here = &self.route.key.namespace;
        let key = to.key(here);
        let unusable = |why: Unusable| Arc::new(Backend::unusable(key.to_string(), why));
        if !to.is_core("Service") {
            flaws.reference("InvalidKind", format!("backend {key}: {}", Unusable::NoServiceKind.message()));
            return unusable(Unusable::NoServiceKind);
        }
        if key.namespace != *here && !is_granted(self.grants, "HTTPRoute", here, "Service", &key) {
            flaws.reference("RefNotPermitted", format!("backend {key}: {}", Unusable::NotPermitted.message()));
            return unusable(Unusable::NotPermitted);
        }
        let Some(port) = to.port.and_then(|port| u16::try_from(port).ok()) else {
            flaws.reference("BackendNotFound", format!("backend {key}: a Service needs a port"));
            return unusable(Unusable::NoPort);
        };
        let backend = self.resolver.backend(&key, &PortRef::Number(port));
        if let Some(why) = backend.unusable {
            flaws.reference("BackendNotFound", format!("backend {}: {}", backend.name, why.message()));
        }
        backend
    }
}

fn filters(filters: &[Filter], flaws: &mut Flaws) -> Option<Filters> {
    let mut all = Filters::default();
    for one in filters {
        if let Err(error) = filter(one, &mut all) {
            flaws.unsupported(error);
            return None;
        }
    }
    Some(all)
}

fn filter(filter: &Filter, to: &mut Filters) -> Result<(), String> {
    let missing = || format!("filter {} has no content", filter.type_);
    match filter.type_.as_str() {
        "RequestHeaderModifier" => {
            extend(&mut to.request, filter.request_header_modifier.as_ref().ok_or_else(missing)?)
        }
        "ResponseHeaderModifier" => {
            extend(&mut to.response, filter.response_header_modifier.as_ref().ok_or_else(missing)?)
        }
        "RequestRedirect" => {
            let redirect = filter.request_redirect.as_ref().ok_or_else(missing)?;
            to.redirect = Some(Redirect {
                scheme: redirect.scheme.as_deref().map(Into::into),
                host: redirect.hostname.as_deref().map(Into::into),
                port: redirect.port.and_then(|port| u16::try_from(port).ok()),
                path: redirect.path.as_ref().map(path_edit).transpose()?,
                status: redirect.status_code.unwrap_or(302),
            });
            Ok(())
        }
        "URLRewrite" => {
            let rewrite = filter.url_rewrite.as_ref().ok_or_else(missing)?;
            let path = rewrite.path.as_ref().map(path_edit).transpose()?;
            to.rewrite = Some(Rewrite { host: rewrite.hostname.as_deref().map(Into::into), path });
            Ok(())
        }
        other => Err(format!("filter type {other:?} is not supported")),
    }
}

fn header((name, value): (&str, &str)) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("header {name:?} is none");
    Ok((name.parse().map_err(|_| wrong())?, value.parse().map_err(|_| wrong())?))
}

fn extend(to: &mut HeaderEdit, modifier: &HeaderModifier) -> Result<(), String> {
    let lines = |list: &[NameValue]| -> Result<Vec<_>, String> {
        list.iter().map(|line| header((&line.name, &line.value))).collect()
    };
    to.set.extend(lines(&modifier.set)?);
    to.add.extend(lines(&modifier.add)?);
    for name in &modifier.remove {
        to.remove.push(name.parse().map_err(|_| format!("header {name:?} is none"))?);
    }
    Ok(())
}

fn path_edit(modifier: &PathModifier) -> Result<PathEdit, String> {
    match modifier.type_.as_str() {
        "ReplaceFullPath" => Ok(PathEdit::Full(modifier.replace_full_path.as_deref().unwrap_or("/").into())),
        "ReplacePrefixMatch" => {
            Ok(PathEdit::Prefix(modifier.replace_prefix_match.as_deref().unwrap_or_default().into()))
        }
        other => Err(format!("path modifier {other:?} is not supported")),
    }
}

fn expression(text: &str) -> Result<Regex, String> {
    let whole = format!("^(?:{text})$");
    RegexBuilder::new(&whole)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|_| format!("{text:?} is no regular expression, or a too large one"))
}

fn text_match(wanted: &NameValue) -> Result<TextMatch, String> {
    match wanted.type_.as_deref().unwrap_or("Exact") {
        "Exact" => Ok(TextMatch::Exact(wanted.value.as_str().into())),
        "RegularExpression" => Ok(TextMatch::Regex(expression(&wanted.value)?)),
        other => Err(format!("match type {other:?} is not supported")),
    }
}

fn condition(wanted: &RouteMatch) -> Result<Condition, String> {
    let default = PathValue::default();
    let path = wanted.path.as_ref().unwrap_or(&default);
    let value = path.value.as_deref().unwrap_or("/");
    let path = match path.type_.as_deref().unwrap_or("PathPrefix") {
        "Exact" => PathMatch::Exact(value.into()),
        "PathPrefix" => PathMatch::prefix(value),
        "RegularExpression" => PathMatch::Regex(expression(value)?),
        other => return Err(format!("path match type {other:?} is not supported")),
    };
    let method = wanted.method.as_deref().map(|name| name.parse::<Method>()).transpose();
    let mut condition = Condition::path(path);
    condition.method = method.map_err(|_| "the method is none".to_owned())?;
    for line in &wanted.headers {
        let name: HeaderName = line.name.parse().map_err(|_| format!("header {:?} is none", line.name))?;
        // Of entries with equivalent names only the first counts.
        if condition.headers.iter().all(|(known, _)| *known != name) {
            condition.headers.push((name, text_match(line)?));
        }
    }
    for parameter in &wanted.query_params {
        if condition.query.iter().all(|(known, _)| **known != *parameter.name) {
            condition.query.push((parameter.name.as_str().into(), text_match(parameter)?));
        }
    }
    Ok(condition)
}

/// A duration as Gateway API writes it (GEP-2257): `1h30m`, `10s`, `500ms`.
fn duration(text: &str) -> Option<Duration> {
    let (mut left, mut sum) = (text, Duration::ZERO);
    if left.is_empty() {
        return None;
    }
    while !left.is_empty() {
        let digits = left.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = left[..digits].parse().ok()?;
        left = &left[digits..];
        let (unit, rest) = left.split_at(left.find(|c: char| c.is_ascii_digit()).unwrap_or(left.len()));
        left = rest;
        sum += match unit {
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("1h30m", Some(5_400_000)),
            ("10s", Some(10_000)),
            ("1s500ms", Some(1_500)),
            ("0s", Some(0)),
            ("", None),
            ("10", None),
            ("x", None),
            ("1d", None),
        ] {
            assert_eq!(duration(text), ms.map(Duration::from_millis), "{text}");
        }
    }
}
