//! Attributes: the generic form every operation can be turned into and read back from.
//!
//! The text form and the artifact know operations only as `(name, attributes)`, so that one printer, one parser and
//! one binary layout serve all stages. [`define_ops!`](crate::define_ops) declares a stage's operations once and
//! generates both directions.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An attribute value. `F32s` and `F64s` are apart because thresholds must keep their exact type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Attr {
    /// `true` or `false`.
    Bool(bool),
    /// A 64-bit integer: `-3`.
    Int(i64),
    /// A 32-bit float: `1.5f`.
    F32(f32),
    /// A 64-bit float: `1.5`.
    F64(f64),
    /// A string: `"label"`.
    Str(String),
    /// `i64[1, 2]`.
    Ints(Vec<i64>),
    /// `f32[1.0, 2.0]`.
    F32s(Vec<f32>),
    /// `f64[1.0, 2.0]`.
    F64s(Vec<f64>),
    /// `str["a", "b"]`.
    Strs(Vec<String>),
    /// `[a, b]`, of any attributes.
    List(Vec<Attr>),
    /// `{ key = value }`.
    Record(Vec<(String, Attr)>),
    /// Lines of a nested text form, such as a decision diagram; each printed behind a bar.
    Lines(Vec<String>),
}

/// Why attributes could not be read back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttrError {
    /// No operation of this name in the stage.
    #[error("unknown operation `{0}`")]
    UnknownOp(String),
    /// A required attribute is absent.
    #[error("attribute `{0}` is missing")]
    Missing(String),
    /// The attribute has another type.
    #[error("attribute `{0}`: {1}")]
    Wrong(String, String),
    /// An attribute the operation does not have.
    #[error("unknown attribute `{0}`")]
    Unknown(String),
}

/// The attributes of one operation while it is read back; what is not taken is an error.
#[derive(Debug, Default)]
pub struct AttrMap(pub Vec<(String, Attr)>);

impl AttrMap {
    /// Removes and converts the attribute `key`.
    pub fn take<T: Field>(&mut self, key: &str) -> Result<T, AttrError> {
        let found = self.0.iter().position(|(name, _)| name == key).map(|at| self.0.remove(at).1);
        T::from_attr(found).map_err(|why| match why {
            None => AttrError::Missing(key.to_owned()),
            Some(why) => AttrError::Wrong(key.to_owned(), why),
        })
    }

    /// Fails when an attribute was not taken.
    pub fn finish(self) -> Result<(), AttrError> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((key, _)) => Err(AttrError::Unknown(key)),
        }
    }
}

/// A type that an operation may hold as an attribute. `None` means: leave it out.
pub trait Field: Sized {
    /// The attribute, or `None` for an absent optional.
    fn to_attr(&self) -> Option<Attr>;
    /// Reads it back. `Err(None)` means that a required attribute is missing.
    fn from_attr(attr: Option<Attr>) -> Result<Self, Option<String>>;
}

fn expected<T>(what: &str, got: Option<Attr>) -> Result<T, Option<String>> {
    Err(got.map(|attr| format!("expected {what}, found {}", attr.kind())))
}

impl Attr {
    /// The name of the variant, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Attr::Bool(_) => "a boolean",
            Attr::Int(_) => "an integer",
            Attr::F32(_) => "a 32-bit float",
            Attr::F64(_) => "a 64-bit float",
            Attr::Str(_) => "a string",
            Attr::Ints(_) => "a list of integers",
            Attr::F32s(_) => "a list of 32-bit floats",
            Attr::F64s(_) => "a list of 64-bit floats",
            Attr::Strs(_) => "a list of strings",
            Attr::List(_) => "a list",
            Attr::Record(_) => "a record",
            Attr::Lines(_) => "a text block",
        }
    }
}

macro_rules! direct_field {
    ($($ty:ty => $variant:ident, $what:literal;)*) => {$(
        impl Field for $ty {
            fn to_attr(&self) -> Option<Attr> {
                Some(Attr::$variant(self.clone()))
            }
            fn from_attr(attr: Option<Attr>) -> Result<Self, Option<String>> {
                match attr {
                    Some(Attr::$variant(value)) => Ok(value),
                    other => expected($what, other),
                }
            }
        }
    )*};
}
direct_field! {
    bool => Bool, "a boolean";
    i64 => Int, "an integer";
    f32 => F32, "a 32-bit float";
    f64 => F64, "a 64-bit float";
    String => Str, "a string";
    Vec<i64> => Ints, "a list of integers";
    Vec<f32> => F32s, "a list of 32-bit floats";
    Vec<f64> => F64s, "a list of 64-bit floats";
    Vec<String> => Strs, "a list of strings";
}

macro_rules! narrow_int_field {
    ($($ty:ty),*) => {$(
        impl Field for $ty {
            fn to_attr(&self) -> Option<Attr> {
                i64::try_from(*self).ok().map(Attr::Int)
            }
            fn from_attr(attr: Option<Attr>) -> Result<Self, Option<String>> {
                match attr {
                    Some(Attr::Int(value)) => <$ty>::try_from(value).map_err(|_| Some(format!("{value} is out of range"))),
                    other => expected("an integer", other),
                }
            }
        }
    )*};
}
narrow_int_field!(u8, u32, usize, i32);

macro_rules! narrow_ints_field {
    ($($ty:ty),*) => {$(
        impl Field for Vec<$ty> {
            fn to_attr(&self) -> Option<Attr> {
                self.iter().map(|&value| i64::try_from(value).ok()).collect::<Option<Vec<i64>>>().map(Attr::Ints)
            }
            fn from_attr(attr: Option<Attr>) -> Result<Self, Option<String>> {
                let values = Vec::<i64>::from_attr(attr)?;
                values
                    .into_iter()
                    .map(|value| <$ty>::try_from(value).map_err(|_| Some(format!("{value} is out of range"))))
                    .collect()
            }
        }
    )*};
}
narrow_ints_field!(u32, usize);

impl<T: Field> Field for Option<T> {
    fn to_attr(&self) -> Option<Attr> {
        self.as_ref().and_then(Field::to_attr)
    }
    fn from_attr(attr: Option<Attr>) -> Result<Self, Option<String>> {
        match attr {
            None => Ok(None),
            some => T::from_attr(some).map(Some),
        }
    }
}

/// A list of records or enumerations: `Many(vec![..])` is an attribute wherever its items are.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Many<T>(pub Vec<T>);

impl<T: Field> Field for Many<T> {
    fn to_attr(&self) -> Option<Attr> {
        Some(Attr::List(self.0.iter().filter_map(Field::to_attr).collect()))
    }
    fn from_attr(attr: Option<Attr>) -> Result<Self, Option<String>> {
        match attr {
            Some(Attr::List(items)) => {
                items.into_iter().map(|item| T::from_attr(Some(item))).collect::<Result<_, _>>().map(Many)
            }
            other => expected("a list", other),
        }
    }
}

impl<T> std::ops::Deref for Many<T> {
    type Target = Vec<T>;
    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> From<Vec<T>> for Many<T> {
    fn from(items: Vec<T>) -> Self {
        Many(items)
    }
}

/// What the text form and the artifact need from a stage's operations.
pub trait OpSet: Clone + fmt::Debug + PartialEq + Sized {
    /// The name in the text form.
    fn name(&self) -> &'static str;
    /// Its attributes in declaration order; absent optionals left out.
    fn attrs(&self) -> Vec<(String, Attr)>;
    /// The operation of that name with these attributes.
    fn from_parts(name: &str, attrs: AttrMap) -> Result<Self, AttrError>;
}

/// Declares the operations of a stage: the enum, their names in the text form, and both directions of [`OpSet`].
#[macro_export]
macro_rules! define_ops {
    ($(#[$outer:meta])* pub enum $Ops:ident {
        $($(#[$inner:meta])* $Variant:ident = $text:literal { $($(#[$field_meta:meta])* $field:ident : $ty:ty),* $(,)? }),* $(,)?
    }) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $Ops {
            $($(#[$inner])* $Variant { $($(#[$field_meta])* $field: $ty),* }),*
        }

        impl $Ops {
            /// Every operation's name in the text form, in declaration order.
            pub const NAMES: &'static [&'static str] = &[$($text),*];
            /// The Rust types of each operation's attributes, in declaration order.
            pub const FIELDS: &'static [(&'static str, &'static [(&'static str, &'static str)])] =
                &[$(($text, &[$((stringify!($field), stringify!($ty))),*])),*];
        }

        impl $crate::attr::OpSet for $Ops {
            fn name(&self) -> &'static str {
                match self {
                    $($Ops::$Variant { .. } => $text),*
                }
            }
            fn attrs(&self) -> Vec<(String, $crate::attr::Attr)> {
                match self {
                    $($Ops::$Variant { $($field),* } => {
                        #[allow(unused_mut, reason = "operations without attributes")]
                        let mut out: Vec<(String, $crate::attr::Attr)> = Vec::new();
                        $(if let Some(attr) = $crate::attr::Field::to_attr($field) {
                            out.push((stringify!($field).to_owned(), attr));
                        })*
                        out
                    }),*
                }
            }
            #[allow(unused_mut, reason = "operations without attributes")]
            fn from_parts(name: &str, mut attrs: $crate::attr::AttrMap) -> Result<Self, $crate::attr::AttrError> {
                match name {
                    $($text => {
                        $(let $field = attrs.take(stringify!($field))?;)*
                        attrs.finish()?;
                        Ok($Ops::$Variant { $($field),* })
                    })*
                    other => Err($crate::attr::AttrError::UnknownOp(other.to_owned())),
                }
            }
        }
    };
}

/// Declares an enumeration that is written as a string attribute.
#[macro_export]
macro_rules! attr_enum {
    ($(#[$outer:meta])* pub enum $Name:ident { $($(#[$inner:meta])* $Variant:ident = $text:literal),* $(,)? }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $Name { $($(#[$inner])* $Variant),* }

        impl $Name {
            /// The name in the text form.
            pub fn as_str(self) -> &'static str {
                match self { $($Name::$Variant => $text),* }
            }
            /// The variant of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some($Name::$Variant),)* _ => None }
            }
        }

        impl $crate::attr::Field for $Name {
            fn to_attr(&self) -> Option<$crate::attr::Attr> {
                Some($crate::attr::Attr::Str(self.as_str().to_owned()))
            }
            fn from_attr(attr: Option<$crate::attr::Attr>) -> Result<Self, Option<String>> {
                let name = String::from_attr(attr)?;
                Self::from_name(&name).ok_or_else(|| Some(format!("`{name}` is not one of {:?}", [$($text),*])))
            }
        }
    };
}

/// Declares a struct that is written as a record attribute.
#[macro_export]
macro_rules! attr_record {
    ($(#[$outer:meta])* pub struct $Name:ident { $($(#[$inner:meta])* pub $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name { $($(#[$inner])* pub $field: $ty),* }

        impl $crate::attr::Field for $Name {
            fn to_attr(&self) -> Option<$crate::attr::Attr> {
                let mut out = Vec::new();
                $(if let Some(attr) = $crate::attr::Field::to_attr(&self.$field) {
                    out.push((stringify!($field).to_owned(), attr));
                })*
                Some($crate::attr::Attr::Record(out))
            }
            fn from_attr(attr: Option<$crate::attr::Attr>) -> Result<Self, Option<String>> {
                match attr {
                    None => Err(None),
                    Some($crate::attr::Attr::Record(items)) => {
                        let mut attrs = $crate::attr::AttrMap(items);
                        let read = |attrs: &mut $crate::attr::AttrMap| -> Result<Self, $crate::attr::AttrError> {
                            Ok($Name { $($field: attrs.take(stringify!($field))?),* })
                        };
                        let record = read(&mut attrs).map_err(|why| Some(why.to_string()))?;
                        attrs.finish().map_err(|why| Some(why.to_string()))?;
                        Ok(record)
                    }
                    Some(other) => Err(Some(format!("expected a record, found {}", other.kind()))),
                }
            }
        }
    };
}
