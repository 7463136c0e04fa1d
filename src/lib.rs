//! tidemill
pub mod decode;
pub mod detect;
pub mod error;
pub mod event;
pub mod exec;
pub mod expr;
pub mod kafka;
pub mod offset;
pub mod plan;
pub mod raw;
pub mod time;
