//! A value of an attribute or of a parameter.

/// A value of an attribute, or of a parameter of a [`Condition`](super::Condition).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing is known: no comparison with it is true, `IS NULL` is.
    Null,
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// Text.
    Text(String),
}

macro_rules! values {
    ($($type:ty => $variant:ident),*) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Value {
                Value::$variant(value.into())
            }
        })*
    };
}
values!(i64 => Integer, i32 => Integer, u32 => Integer, bool => Integer, f64 => Real, f32 => Real, &str => Text, String => Text);

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}
