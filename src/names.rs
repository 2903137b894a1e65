//! Values with names, which are parsed and displayed in one place for the command line, C and Python.

/// Gives an enum a list of names, `Display` and `FromStr`. The first name of a value is displayed; others are understood.
macro_rules! names {
    ($type:ident, $parameter:expr, { $($variant:ident: $name:literal $(| $alias:literal)*),+ $(,)? }) => {
        impl $type {
            /// The name of each value, as it is displayed, and others that are understood.
            pub const NAMES: &[(&str, &[&str])] = &[$(($name, &[$($alias),*])),+];

            /// The name, as it is displayed.
            pub fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = crate::Error;

            fn from_str(name: &str) -> crate::Result<$type> {
                match name {
                    $($name $(| $alias)* => Ok($type::$variant),)+
                    _ => Err($crate::names::unknown($parameter, $type::NAMES.iter().map(|(name, _)| *name), name)),
                }
            }
        }
    };
}

pub(crate) use names;

use crate::error::{Error, Parameter};

/// The error about a name that is none of `names`.
pub(crate) fn unknown<'a>(parameter: Parameter, names: impl IntoIterator<Item = &'a str>, found: &str) -> Error {
    let mut names: Vec<&str> = names.into_iter().collect();
    let last = names.pop().unwrap_or_default();
    let expected = if names.is_empty() { last.to_string() } else { format!("{} or {last}", names.join(", ")) };
    Error::argument(parameter, expected, format!("`{found}`"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use crate::backend::DeviceKind;
    use crate::tables::Dtype;

    #[test]
    fn names_are_parsed_and_displayed() {
        for (name, aliases) in Dtype::NAMES {
            for alias in aliases.iter().chain([name]) {
                assert_eq!(alias.parse::<Dtype>().unwrap().to_string(), *name);
            }
        }
        assert_eq!(DeviceKind::SoftwareGpu.to_string().parse::<DeviceKind>().unwrap(), DeviceKind::SoftwareGpu);
        assert_eq!("i8".parse::<Dtype>().unwrap(), Dtype::I8);
        assert_eq!(format!("{:>6}", Dtype::I8), "  int8");
        let error = "f64".parse::<Dtype>().unwrap_err().to_string();
        assert_eq!(error, "dtype: expected f32, f16 or int8, found `f64`");
    }
}
