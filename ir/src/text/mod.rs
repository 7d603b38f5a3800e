//! The text form of the IR: one printer and one parser for all stages.
//!
//! ```text
//! circuit @name version 1 {
//!   %0 = op { key = value } : type        ; a comment
//!   %1 = op %0 { key =
//!     | a line of a nested text form
//!     | another
//!   } : type
//!   output "scores" = %1
//! }
//! ```
//!
//! Printing and parsing give an equal graph; parsing and printing are a fixed point. Types are optional on reading
//! (except on operations without operands); where given, they are checked against the derived ones.

mod parser;
mod printer;

pub use parser::{parse, stage_of};
pub use printer::{print, print_attr};

/// Version of the text form.
pub const VERSION: i64 = 1;
