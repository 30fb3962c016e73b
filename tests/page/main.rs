//! The explorer in a real browser: headless Chromium, driven over WebDriver, before real nodes.
//!
//! `make` installs Debian's chromium and chromium-driver. `QBC_SHOTS=FOLDER` leaves pictures of the views.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod driver;
mod node;
mod story;
mod vectors;
