//! Acting as somebody else, for those who may.

use http::{HeaderMap, HeaderName};

use super::{Attributes, Authority, Extra, Target, User, group, refusal};
use crate::{status::Status, store::Store};

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");

/// What the header of a further fact starts with; the rest is its key.
const EXTRA: &str = "impersonate-extra-";

/// The API group of the resources that uids and further facts count as.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom the request is to be treated as coming from, once it is clear that `caller` may impersonate every
/// part of them.
pub(super) fn resolve(
    authority: &Authority,
    store: &Store,
    caller: User,
    headers: &HeaderMap,
) -> Result<User, Status> {
    let wanted = wanted(headers)?;
    let Some(wanted) = wanted else {
        return Ok(caller);
    };
    for part in parts(&wanted) {
        let attributes = Attributes {
            user: &caller,
            verb: "impersonate",
            target: part,
        };
        authority.require(store, &attributes)?;
    }
    Ok(complete(wanted))
}

/// The user that the headers ask for, before any group is added.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let values = |name: &HeaderName| -> Vec<String> {
        let all = headers.get_all(name).iter();
        let texts = all.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        texts.filter(|text| !text.is_empty()).collect()
    };
    let name = values(&USER).pop().unwrap_or_default();
    let uid = values(&UID).pop().unwrap_or_default();
    let groups = values(&GROUP);
    let extra: Extra = headers
        .keys()
        .filter_map(|header| Some((header, header.as_str().strip_prefix(EXTRA)?)))
        .map(|(header, key)| (unescape(key), values(header)))
        .collect();
    if name.is_empty() && (!uid.is_empty() || !groups.is_empty() || !extra.is_empty()) {
        let why = "groups, a uid or extra fields were requested without impersonating a user";
        return Err(refusal::internal(why));
    }
    Ok((!name.is_empty()).then_some(User {
        name,
        uid,
        groups,
        extra,
    }))
}

/// What has to be allowed, one by one.
fn parts(user: &User) -> Vec<Target<'_>> {
    let of = |group, resource, subresource, namespace, name| Target::Resource {
        group,
        resource,
        subresource,
        namespace,
        name,
    };
    let mut parts = vec![match user.as_service_account() {
        Some((namespace, name)) => of("", "serviceaccounts", "", namespace, name),
        None => of("", "users", "", "", &user.name),
    }];
    if !user.uid.is_empty() {
        parts.push(of(AUTHENTICATION, "uids", "", "", &user.uid));
    }
    let groups = user.groups.iter();
    parts.extend(groups.map(|group| of("", "groups", "", "", group)));
    for (key, values) in &user.extra {
        let values = values.iter();
        parts.extend(values.map(|value| of(AUTHENTICATION, "userextras", key, "", value)));
    }
    parts
}

/// Adds the groups that come with a name.
fn complete(mut user: User) -> User {
    if user.groups.is_empty()
        && let Some((namespace, name)) = user.as_service_account()
    {
        user.groups = User::service_account(namespace, name).groups;
    }
    if user.is_anonymous() {
        user.member_of(group::UNAUTHENTICATED)
    } else if user.is_in(group::UNAUTHENTICATED) {
        user
    } else {
        user.member_of(group::AUTHENTICATED)
    }
}

/// Keys are percent-encoded, for what a header's name cannot hold. A key that is not stays as it is.
fn unescape(key: &str) -> String {
    if !key.contains('%') {
        return key.to_owned();
    }
    // A form's encoding differs from that of a path in the plus sign alone.
    let pair = format!("{}=", key.replace('+', "%2B"));
    let mut decoded = form_urlencoded::parse(pair.as_bytes());
    decoded
        .next()
        .map_or_else(|| key.to_owned(), |(key, _)| key.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_extra_fields_are_unescaped() {
        assert_eq!(unescape("scopes"), "scopes");
        assert_eq!(unescape("example.com%2fteam+a"), "example.com/team+a");
    }

    #[test]
    fn groups_alone_impersonate_nobody() {
        let mut headers = HeaderMap::new();
        headers.insert(GROUP, "devs".parse().unwrap());
        assert_eq!(wanted(&headers).unwrap_err().code, 500);
    }

    #[test]
    fn a_service_account_comes_with_its_groups() {
        let user = complete(User::new("system:serviceaccount:mesh:istiod"));
        let groups = [
            "system:serviceaccounts",
            "system:serviceaccounts:mesh",
            "system:authenticated",
        ];
        assert_eq!(user.groups, groups);
    }
}
