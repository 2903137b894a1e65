//! The header of a safetensors file, more strictly than the `safetensors` crate reads it.

use std::collections::HashSet;
use std::fmt;

use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

/// Reads the header of the file with these bytes; also where the data begin. `Err` says what is wrong.
pub(crate) fn read(file: &[u8]) -> Result<(usize, Metadata), String> {
    // Checks that ranges are in order, without gaps, of the right lengths, and end where the file ends.
    let (length, header) = SafeTensors::read_metadata(file).map_err(|error| error.to_string())?;
    let base = size_of::<u64>() + length;
    check_names(file.get(size_of::<u64>()..base).unwrap_or_default())?;
    Ok((base, header))
}

/// Fails if the JSON text of a header has a name twice, of which other readers take the last.
pub(crate) fn check_names(json: &[u8]) -> Result<(), String> {
    serde_json::from_slice::<UniqueNames>(json).map(|_| ()).map_err(|error| error.to_string())
}

struct UniqueNames;

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UniqueNames, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = UniqueNames;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueNames, A::Error> {
                let mut names = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if names.contains(&name) {
                        return Err(A::Error::custom(format!("two tensors are called `{name}`")));
                    }
                    names.insert(name);
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(UniqueNames)
            }
        }
        deserializer.deserialize_map(Names)
    }
}
