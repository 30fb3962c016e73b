//! The rules of the house, executed: who imports whom, which words stay in which room, how long things are, and whether
//! the documents speak of what is there. Each failure lists the places and says what the rule is for.

#![allow(clippy::unwrap_used)]

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/faces.rs"]
mod faces;
#[path = "tidy/functions.rs"]
mod functions;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/words.rs"]
mod words;
