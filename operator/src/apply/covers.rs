//! Whether an observed object has everything that a desired one asks for.
//!
//! The observed object may hold more: defaults of the API server, other people's labels, list entries that another
//! field manager added. Lists are compared as server-side apply merges them: some by a key of their entries, all others
//! whole. Source: the `x-kubernetes-list-type` and `x-kubernetes-map-type` marks of the Kubernetes API.

use serde_json::{Map, Value};

use crate::quantity::value_of;

/// Lists that are merged by keys of their entries.
const KEYED: [(&str, &[&str]); 6] = [
    ("containers", &["name"]),
    ("env", &["name"]),
    ("ownerReferences", &["uid"]),
    ("ports", &["containerPort", "port", "protocol"]),
    ("volumeMounts", &["mountPath"]),
    ("volumes", &["name"]),
];
/// Maps that are set whole: an entry that somebody adds is not his own.
const ATOMIC: [&str; 3] = ["matchLabels", "nodeSelector", "selector"];
/// Below these names, strings are quantities: `0.5` and `500m` are the same.
const QUANTITIES: [&str; 3] = ["requests", "limits", "capacity"];

/// Whether `observed` has all that `desired` asks for.
pub(super) fn covers(observed: &Value, desired: &Value) -> bool {
    covers_value(Some(observed), desired, "", false)
}

/// `name` is the field's; `quantity` tells whether strings in it are quantities.
fn covers_value(observed: Option<&Value>, desired: &Value, name: &str, quantity: bool) -> bool {
    let Some(observed) = observed else { return is_empty(desired) };
    match (observed, desired) {
        (observed, desired) if ATOMIC.contains(&name) => {
            observed == desired || (is_empty(observed) && is_empty(desired))
        }
        (Value::Object(observed), Value::Object(desired)) => covers_object(observed, desired, quantity),
        (Value::Array(observed), Value::Array(desired)) => covers_list(observed, desired, name),
        (Value::String(observed), Value::String(desired)) if quantity => {
            observed == desired || (value_of(observed).is_some() && value_of(observed) == value_of(desired))
        }
        (observed, desired) => observed == desired,
    }
}

/// Kubernetes leaves out what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn covers_object(observed: &Map<String, Value>, desired: &Map<String, Value>, quantity: bool) -> bool {
    desired.iter().all(|(name, value)| {
        covers_value(observed.get(name), value, name, quantity || QUANTITIES.contains(&name.as_str()))
    })
}

fn covers_list(observed: &[Value], desired: &[Value], name: &str) -> bool {
    let Some((_, keys)) = KEYED.iter().find(|(list, _)| *list == name) else {
        let mut pairs = observed.iter().zip(desired);
        return observed.len() == desired.len()
            && pairs.all(|(observed, desired)| covers_value(Some(observed), desired, "", false));
    };
    desired.iter().all(|item| {
        let same =
            observed.iter().find(|candidate| keys.iter().all(|key| candidate.get(key) == item.get(key)));
        same.is_some_and(|same| covers_value(Some(same), item, "", false))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::defaults_are_extra(json!({"a": 1, "b": 2}), json!({"a": 1}), true)]
    #[case::changed(json!({"a": 2}), json!({"a": 1}), false)]
    #[case::missing(json!({}), json!({"a": 1}), false)]
    #[case::empty_is_left_out(json!({}), json!({"a": {}, "b": [], "c": null, "d": {"e": []}, "f": ""}), true)]
    #[case::keyed_extra(json!({"env": [{"name": "x", "value": "1"}, {"name": "y"}]}), json!({"env": [{"name": "x", "value": "1"}]}), true)]
    #[case::keyed_changed(json!({"env": [{"name": "x", "value": "2"}]}), json!({"env": [{"name": "x", "value": "1"}]}), false)]
    #[case::keyed_missing(json!({"env": [{"name": "y"}]}), json!({"env": [{"name": "x"}]}), false)]
    #[case::keyed_order(json!({"env": [{"name": "y"}, {"name": "x"}]}), json!({"env": [{"name": "x"}, {"name": "y"}]}), true)]
    #[case::list_longer(json!({"args": ["a", "b"]}), json!({"args": ["a"]}), false)]
    #[case::port_changed(json!({"ports": [{"port": 5000, "protocol": "TCP"}]}), json!({"ports": [{"port": 5001, "protocol": "TCP"}]}), false)]
    #[case::port_added(json!({"ports": [{"port": 1, "protocol": "UDP"}, {"port": 1, "protocol": "TCP", "nodePort": 3}]}), json!({"ports": [{"port": 1, "protocol": "TCP"}]}), true)]
    #[case::tolerations_of_one_key(
        json!({"tolerations": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}]}),
        json!({"tolerations": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}]}),
        true
    )]
    #[case::toleration_added(json!({"tolerations": [{"key": "a"}, {"key": "b"}]}), json!({"tolerations": [{"key": "a"}]}), false)]
    #[case::selector_added(json!({"selector": {"a": "b", "x": "y"}}), json!({"selector": {"a": "b"}}), false)]
    #[case::node_selector_added(json!({"nodeSelector": {"x": "y"}}), json!({"nodeSelector": {}}), false)]
    #[case::label_added(json!({"labels": {"a": "b", "x": "y"}}), json!({"labels": {"a": "b"}}), true)]
    #[case::quantity(json!({"limits": {"cpu": "500m"}}), json!({"limits": {"cpu": "0.5"}}), true)]
    #[case::quantity_bytes(json!({"requests": {"storage": "1Gi"}}), json!({"requests": {"storage": "1024Mi"}}), true)]
    #[case::quantity_differs(json!({"limits": {"cpu": "501m"}}), json!({"limits": {"cpu": "0.5"}}), false)]
    #[case::no_quantity_elsewhere(json!({"args": ["1.0"]}), json!({"args": ["1"]}), false)]
    fn compares(#[case] observed: Value, #[case] desired: Value, #[case] expected: bool) {
        assert_eq!(covers(&observed, &desired), expected);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z]{0,3}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn everything_covers_itself(value in json_value()) {
            prop_assert!(covers(&value, &value));
        }
    }
}
