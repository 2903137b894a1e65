//! The reference's gin files.
