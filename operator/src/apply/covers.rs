//! Whether an observed object has everything that a desired one asks for.
//!
//! The observed object may hold more: defaults of the API server, other people's labels, list entries that another
//! field manager added. Lists whose entries have a key are compared by key, as server-side apply merges them; other
//! lists must be equal.

use serde_json::{Map, Value};

use crate::quantity::value_of;

/// Keys by which Kubernetes merges lists, most telling first.
const KEYS: [&str; 6] = ["mountPath", "containerPort", "port", "uid", "name", "key"];
/// Below these names, strings are quantities: `0.5` and `500m` are the same.
const QUANTITIES: [&str; 3] = ["requests", "limits", "capacity"];

/// Whether `observed` has all that `desired` asks for.
pub(super) fn covers(observed: &Value, desired: &Value) -> bool {
    covers_value(Some(observed), desired, false)
}

fn covers_value(observed: Option<&Value>, desired: &Value, quantity: bool) -> bool {
    match (observed, desired) {
        (None, desired) => is_empty(desired),
        (Some(Value::Object(observed)), Value::Object(desired)) => covers_object(observed, desired, quantity),
        (Some(Value::Array(observed)), Value::Array(desired)) => covers_list(observed, desired),
        (Some(Value::String(observed)), Value::String(desired)) if quantity => {
            observed == desired || (value_of(observed).is_some() && value_of(observed) == value_of(desired))
        }
        (Some(observed), desired) => observed == desired,
    }
}

/// Kubernetes leaves out what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn covers_object(observed: &Map<String, Value>, desired: &Map<String, Value>, quantity: bool) -> bool {
    desired.iter().all(|(name, value)| {
        covers_value(observed.get(name), value, quantity || QUANTITIES.contains(&name.as_str()))
    })
}

fn covers_list(observed: &[Value], desired: &[Value]) -> bool {
    let key = desired.first().and_then(|first| KEYS.into_iter().find(|key| first.get(key).is_some()));
    match key.filter(|key| desired.iter().all(|item| item.get(key).is_some())) {
        Some(key) => desired.iter().all(|item| {
            let same = observed.iter().find(|candidate| candidate.get(key) == item.get(key));
            same.is_some() && covers_value(same, item, false)
        }),
        None => {
            observed.len() == desired.len()
                && observed
                    .iter()
                    .zip(desired)
                    .all(|(observed, desired)| covers_value(Some(observed), desired, false))
        }
    }
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
    #[case::empty_is_left_out(json!({}), json!({"a": {}, "b": [], "c": null, "d": {"e": []}}), true)]
    #[case::keyed_extra(json!([{"name": "x", "value": "1"}, {"name": "y"}]), json!([{"name": "x", "value": "1"}]), true)]
    #[case::keyed_changed(json!([{"name": "x", "value": "2"}]), json!([{"name": "x", "value": "1"}]), false)]
    #[case::keyed_missing(json!([{"name": "y"}]), json!([{"name": "x"}]), false)]
    #[case::keyed_order(json!([{"name": "y"}, {"name": "x"}]), json!([{"name": "x"}, {"name": "y"}]), true)]
    #[case::plain_list_longer(json!(["a", "b"]), json!(["a"]), false)]
    #[case::ports(json!([{"name": "https", "port": 5000, "protocol": "TCP"}]), json!([{"name": "https", "port": 5001}]), false)]
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
