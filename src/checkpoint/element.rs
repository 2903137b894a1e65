//! Element types of stored tensors, and their conversion to f32.

use half::{bf16, f16};

/// Type of one stored element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

/// A value that f32 cannot hold as a finite number.
pub(super) struct NotFinite {
    /// Flat, row-major index.
    pub index: usize,
    pub value: f64,
}

impl Element {
    pub fn name(self) -> &'static str {
        match self {
            Element::F64 => "f64",
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::Bf16 => "bf16",
            Element::I64 => "i64",
            Element::I32 => "i32",
            Element::I16 => "i16",
            Element::I8 => "i8",
            Element::U64 => "u64",
            Element::U32 => "u32",
            Element::U16 => "u16",
            Element::U8 => "u8",
            Element::Bool => "bool",
        }
    }

    /// Converts little-endian `bytes`, rounding to the nearest f32; the first value that is not finite in f32 is
    /// an error.
    pub fn decode(self, bytes: &[u8]) -> Result<Vec<f32>, NotFinite> {
        macro_rules! decode {
            ($stored:ty, $to_f32:expr) => {{
                let (elements, _) = bytes.as_chunks::<{ size_of::<$stored>() }>();
                let read = |e: &[u8; size_of::<$stored>()]| <$stored>::from_le_bytes(*e);
                let values: Vec<f32> = elements.iter().map(|e| $to_f32(read(e))).collect();
                match values.iter().position(|v| !v.is_finite()) {
                    // An f64 may be finite and yet too large: show it as stored.
                    Some(index) if self == Element::F64 => Err(NotFinite {
                        index,
                        value: f64::from_le_bytes(bytes[index * 8..][..8].try_into().unwrap_or_default()),
                    }),
                    Some(index) => Err(NotFinite { index, value: f64::from(values[index]) }),
                    None => Ok(values),
                }
            }};
        }
        match self {
            Element::F64 => decode!(f64, |v: f64| v as f32),
            Element::F32 => decode!(f32, |v: f32| v),
            Element::F16 => decode!(f16, f16::to_f32),
            Element::Bf16 => decode!(bf16, bf16::to_f32),
            Element::I64 => decode!(i64, |v: i64| v as f32),
            Element::I32 => decode!(i32, |v: i32| v as f32),
            Element::I16 => decode!(i16, f32::from),
            Element::I8 => decode!(i8, f32::from),
            Element::U64 => decode!(u64, |v: u64| v as f32),
            Element::U32 => decode!(u32, |v: u32| v as f32),
            Element::U16 => decode!(u16, f32::from),
            Element::U8 => decode!(u8, f32::from),
            Element::Bool => decode!(u8, |v: u8| f32::from(u8::from(v != 0))),
        }
    }
}

impl From<pytorch_reader::DType> for Element {
    fn from(dtype: pytorch_reader::DType) -> Element {
        use pytorch_reader::DType;
        match dtype {
            DType::F64 => Element::F64,
            DType::F32 => Element::F32,
            DType::F16 => Element::F16,
            DType::BF16 => Element::Bf16,
            DType::I64 => Element::I64,
            DType::I32 => Element::I32,
            DType::I16 => Element::I16,
            DType::I8 => Element::I8,
            DType::U64 => Element::U64,
            DType::U32 => Element::U32,
            DType::U16 => Element::U16,
            DType::U8 => Element::U8,
            DType::Bool => Element::Bool,
        }
    }
}

impl TryFrom<safetensors::Dtype> for Element {
    type Error = String;

    fn try_from(dtype: safetensors::Dtype) -> Result<Element, String> {
        use safetensors::Dtype;
        Ok(match dtype {
            Dtype::F64 => Element::F64,
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::Bf16,
            Dtype::I64 => Element::I64,
            Dtype::I32 => Element::I32,
            Dtype::I16 => Element::I16,
            Dtype::I8 => Element::I8,
            Dtype::U64 => Element::U64,
            Dtype::U32 => Element::U32,
            Dtype::U16 => Element::U16,
            Dtype::U8 => Element::U8,
            Dtype::BOOL => Element::Bool,
            other => return Err(other.to_string()),
        })
    }
}
