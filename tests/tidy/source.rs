//! The tree as text: files, and Rust without its comments and strings.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the tree.
pub struct File {
    /// From the root of the repository.
    pub path: String,
    pub text: String,
}

/// Folders that tools make.
const MADE: [&str; 7] = [
    "target",
    ".git",
    "__pycache__",
    "corpus",
    "artifacts",
    "qbc-data",
    ".venv",
];

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file below a folder of the repository, by path.
pub fn files(below: &str) -> Vec<File> {
    let mut files = Vec::new();
    walk(&root().join(below), &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn walk(path: &Path, files: &mut Vec<File>) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if MADE.contains(&name.as_ref()) {
        return;
    }
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), files);
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        let path = path.strip_prefix(root()).unwrap().to_string_lossy();
        let path = path.into_owned();
        files.push(File { path, text });
    }
}

/// All Rust files of the package.
pub fn rust() -> Vec<File> {
    let below = ["src", "tests", "benches", "fuzz", "build.rs"];
    let all = below.iter().flat_map(|below| files(below));
    all.filter(|file| file.is("rs")).collect()
}

impl File {
    pub fn is(&self, kind: &str) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|end| end == kind)
    }

    /// The room of a file in src.
    pub fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let (room, _) = inside.split_once('/').or(inside.split_once('.'))?;
        (room != "lib" && room != "main").then_some(room)
    }

    /// The code that is shipped: no comments, no strings, no tests.
    pub fn product(&self) -> String {
        let code = code(&self.text);
        let tests = code.find("#[cfg(test)]\nmod tests");
        code[..tests.unwrap_or(code.len())].to_owned()
    }

    pub fn code(&self) -> String {
        code(&self.text)
    }
}

/// Files of src that are compiled for tests alone.
pub fn test_only(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let (folder, _) = file.path.rsplit_once('/').unwrap_or_default();
        for part in code(&file.text).split("#[cfg(test)]\nmod ").skip(1) {
            if let Some((name, _)) = part.split_once(';')
                && name.chars().all(|c| c.is_alphanumeric() || c == '_')
            {
                found.push(format!("{folder}/{name}.rs"));
            }
        }
    }
    found
}

/// Where a word stands in code, as line numbers.
pub fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let lines = code.lines().enumerate();
    lines
        .filter(|(_, line)| has_word(line, word))
        .map(|(number, _)| number + 1)
        .collect()
}

/// True where the word does not merely end or begin another one.
pub fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let open = word.ends_with(part);
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(part);
        let after = text[at + word.len()..].chars().next().is_some_and(part);
        !(before || open && after)
    })
}

/// Rust with comments and the contents of strings blanked; lines stay where they are.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let end = at + token(&bytes[at..], out.last().copied()).max(1);
        let blank = end - at > 1;
        let piece = bytes[at..end.min(bytes.len())].iter();
        out.extend(piece.map(|byte| match byte {
            b'\n' => b'\n',
            _ if blank => b' ',
            byte => *byte,
        }));
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// How long the comment or string is that begins here; 0 or 1 for anything else.
fn token(rest: &[u8], before: Option<u8>) -> usize {
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if rest.starts_with(b"//") {
        rest.iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(rest.len())
    } else if rest.starts_with(b"/*") {
        find(rest, b"*/").map_or(rest.len(), |end| end + 2)
    } else if rest[0] == b'"' {
        quoted(rest, b'"')
    } else if rest.starts_with(b"r#") || rest.starts_with(b"r\"") {
        if in_word && before != Some(b'b') {
            0
        } else {
            raw(rest)
        }
    } else if rest[0] == b'\'' && (rest.get(1) == Some(&b'\\') || rest.get(2) == Some(&b'\'')) {
        quoted(rest, b'\'')
    } else {
        0
    }
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    find(&rest[hashes + 2..], &close).map_or(rest.len(), |end| hashes + 2 + end + close.len())
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Fails with a list, one place per line.
pub fn none(rule: &str, places: &[String]) {
    assert!(places.is_empty(), "{rule}\n  {}", places.join("\n  "));
}

#[test]
fn comments_and_strings_are_blanked_and_nothing_else_is() {
    let text = "let a = \"x // y\"; // todo\nlet b = r#\"\"q\"\"#; let c = '\"'; fn f<'a>(x: &'a str) {} /* z\n*/ end";
    let code = code(text);
    let words: Vec<&str> = code.split_whitespace().collect();
    let expected = "let a = ; let b = ; let c = ; fn f<'a>(x: &'a str) {} end";
    assert_eq!(words.join(" "), expected);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(has_word("tokio::spawn(x)", "spawn") && !has_word("respawn spawned", "spawn"));
    assert!(has_word("use rand::Rng", "rand::") && !has_word("operand::x", "rand::"));
}
