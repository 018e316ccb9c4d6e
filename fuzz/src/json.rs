//! Mutations of JSON that stay JSON, so that more inputs get past the parser.

use serde_json::{Map, Value, json};

/// A generator of random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Mutates the JSON that follows the first `skipped` bytes of an input, in two of three cases; else, and where there is no
/// JSON, mutates the bytes as `fallback` does. For libFuzzer's custom mutator: returns the new size.
pub fn mutate_json(
    data: &mut [u8],
    size: usize,
    seed: u32,
    skipped: usize,
    fallback: impl FnOnce(&mut [u8], usize) -> usize,
) -> usize {
    let mut random = Random(seed.into());
    if random.below(3) == 0 || size < skipped {
        return fallback(data, size);
    }
    let Ok(mut root) = serde_json::from_slice::<Value>(&data[skipped..size]) else { return fallback(data, size) };
    for _ in 0..1 + random.below(2) {
        mutate(&mut root, &mut random);
    }
    let text = root.to_string();
    match data.get_mut(skipped..skipped + text.len()) {
        Some(to) => {
            to.copy_from_slice(text.as_bytes());
            skipped + text.len()
        }
        None => fallback(data, size),
    }
}

/// Changes a value somewhere in `root`.
fn mutate(root: &mut Value, random: &mut Random) {
    let count = count(root);
    let other = nth(root, &mut random.below(count)).cloned().unwrap_or_default();
    let Some(value) = nth(root, &mut random.below(count)) else { return };
    match random.below(8) {
        0 => *value = other,
        1 | 2 => remove_or_repeat(value, random),
        3 => insert(value, other, random),
        _ => *value = near(value, random),
    }
}

fn remove_or_repeat(value: &mut Value, random: &mut Random) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            let at = random.below(items.len());
            match random.below(3) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, items[at].clone()),
                _ => items.swap(at, 0),
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            let name = fields.keys().nth(random.below(fields.len())).cloned().unwrap_or_default();
            let removed = fields.remove(&name).unwrap_or_default();
            if random.below(2) == 0 {
                fields.insert(format!("{name}x"), removed);
            }
        }
        other => *other = interesting(random),
    }
}

fn insert(value: &mut Value, other: Value, random: &mut Random) {
    match value {
        Value::Array(items) => items.push(other),
        Value::Object(fields) => {
            let name = fields.keys().nth(random.below(fields.len())).cloned().unwrap_or_default();
            fields.insert(name, other);
        }
        value => *value = json!([value.clone(), other]),
    }
}

/// Returns a value like the old one, or an interesting one.
fn near(value: &Value, random: &mut Random) -> Value {
    match (value, random.below(3)) {
        (Value::Number(number), 0) => json!(number.as_f64().unwrap_or(0.0) * [0.5, 2.0, -1.0, 1e10][random.below(4)]),
        (Value::Number(number), 1) => {
            let step = [1, 2, 63, u64::MAX][random.below(4)];
            json!(number.as_u64().unwrap_or(0).wrapping_add(step))
        }
        (Value::Bool(flag), 0 | 1) => json!(!flag),
        (Value::String(text), 0) => json!(text.to_uppercase()),
        (Value::String(text), 1) => {
            let cut = text.chars().take(random.below(text.chars().count() + 1)).collect::<String>();
            json!(cut + ["", "x", "\u{0}", "/", "../", "\u{10ffff}", "*"][random.below(7)])
        }
        _ => interesting(random),
    }
}

fn interesting(random: &mut Random) -> Value {
    match random.below(16) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(1),
        5 => json!(0.5),
        6 => json!(1e308),
        7 => json!(u64::MAX),
        8 => json!(i64::MIN),
        9 => json!(1u64 << random.below(64)),
        10 => json!(""),
        11 => json!([]),
        12 => Value::Object(Map::new()),
        13 => json!([[[[[[[[]]]]]]]]),
        14 => json!("\u{feff}\n\u{301}"),
        _ => json!(random.below(1000)),
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Returns the value of this number, counting from the root in depth-first order.
fn nth<'v>(value: &'v mut Value, number: &mut usize) -> Option<&'v mut Value> {
    if *number == 0 {
        return Some(value);
    }
    *number -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, number)),
        Value::Object(fields) => fields.values_mut().find_map(|item| nth(item, number)),
        _ => None,
    }
}
