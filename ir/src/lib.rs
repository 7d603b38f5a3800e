//! The vocabulary of Tacit. No I/O, no cryptography, and no panic on any input.
//!
//! A model passes through three stages, each a [`graph::Graph`] over its own closed set of operations:
//!
//! 1. [`stage::tensor`]: the float graph as the front end read it, shapes known;
//! 2. [`stage::quant`]: integers with scales; trees over integer codes, linear maps with integer weights;
//! 3. [`stage::circuit`]: encrypted types; decision diagrams, polynomial products, sums, extraction.
//!
//! Every stage has one text form ([`text`]), one verifier ([`verify`]) and one clear interpreter ([`interp`]), the
//! oracle that passes and back ends are tested against. A circuit is lowered to a [`plan::Plan`], the only thing that
//! the compiler and the runtime share, and travels inside the container that [`artifact`] defines.

pub mod artifact;
pub mod attr;
pub mod cost;
pub mod diag;
pub mod diagram;
pub mod graph;
pub mod interp;
pub mod noise;
pub mod params;
pub mod plan;
pub mod stage;
pub mod text;
