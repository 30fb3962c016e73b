//! What goes to stdout, in the form that was asked for; and talk, to stderr.
use std::io::{self, BufWriter, IsTerminal, Write};

use serde_json::Value;

/// The forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OutputFormat {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// One JSON document per line
    Ndjson,
}

/// Writes data to stdout.
pub(super) struct Printer<W: Write = BufWriter<io::Stdout>> {
    format: OutputFormat,
    out: W,
}

/// Rows on their way out, one by one.
pub(super) struct Rows<'a, W: Write> {
    printer: &'a mut Printer<W>,
    columns: &'static [Column],
    written: u64,
}

/// A column of a table: the JSON name and the least width.
pub(super) type Column = (&'static str, usize);

/// One row: its JSON text, and the cells of a table.
pub(super) struct Row {
    pub(super) json: String,
    pub(super) cells: Vec<String>,
}

impl Printer {
    /// To this process's stdout.
    pub(super) fn stdout(format: OutputFormat) -> Self {
        Self::new(format, BufWriter::new(io::stdout()))
    }
}

impl<W: Write> Printer<W> {
    pub(super) fn new(format: OutputFormat, out: W) -> Self {
        Self { format, out }
    }

    /// One object.
    pub(super) fn object(&mut self, object: &Value) -> io::Result<()> {
        match self.format {
            OutputFormat::Table => self.fields(object)?,
            OutputFormat::Json | OutputFormat::Ndjson => writeln!(self.out, "{object}")?,
        }
        self.out.flush()
    }

    /// One object that is JSON text already.
    pub(super) fn row(&mut self, columns: &'static [Column], row: &Row) -> io::Result<()> {
        match self.format {
            OutputFormat::Table => self.named_cells(columns, row)?,
            OutputFormat::Json | OutputFormat::Ndjson => writeln!(self.out, "{}", row.json)?,
        }
        self.out.flush()
    }

    /// A list: an array in JSON, a line each in NDJSON.
    pub(super) fn rows(&mut self, columns: &'static [Column]) -> io::Result<Rows<'_, W>> {
        if self.format == OutputFormat::Table {
            self.names(columns)?;
        }
        Ok(Rows {
            printer: self,
            columns,
            written: 0,
        })
    }

    /// Lines for people, or the object for programs.
    pub(super) fn text_or_object(&mut self, lines: &[String], object: &Value) -> io::Result<()> {
        if self.format != OutputFormat::Table {
            return self.object(object);
        }
        for line in lines {
            writeln!(self.out, "{}", shown(line))?;
        }
        self.out.flush()
    }

    /// A table for people, or the whole object for programs.
    pub(super) fn table_or_object(
        &mut self,
        columns: &'static [Column],
        rows: &[Vec<String>],
        object: &Value,
    ) -> io::Result<()> {
        if self.format != OutputFormat::Table {
            return self.object(object);
        }
        self.names(columns)?;
        for cells in rows {
            self.cells(columns, cells)?;
        }
        self.out.flush()
    }

    /// Fields and a table of what is below for people, or the whole object for programs.
    pub(super) fn fields_and_table(
        &mut self,
        fields: &Value,
        (columns, rows): (&'static [Column], &[Vec<String>]),
        object: &Value,
    ) -> io::Result<()> {
        if self.format == OutputFormat::Table {
            self.fields(fields)?;
            writeln!(self.out)?;
        }
        self.table_or_object(columns, rows, object)
    }

    /// Bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn fields(&mut self, object: &Value) -> io::Result<()> {
        let mut fields = Vec::new();
        flatten("", object, &mut fields);
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in fields {
            writeln!(self.out, "{name:width$}  {}", shown(&value))?;
        }
        Ok(())
    }

    fn named_cells(&mut self, columns: &[Column], row: &Row) -> io::Result<()> {
        let width = columns
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0);
        for ((name, _), cell) in columns.iter().zip(&row.cells) {
            writeln!(self.out, "{name:width$}  {}", shown(cell))?;
        }
        Ok(())
    }

    fn names(&mut self, columns: &[Column]) -> io::Result<()> {
        let names = columns.iter().map(|(name, _)| name.to_uppercase());
        self.cells(columns, &names.collect::<Vec<_>>())
    }

    fn cells(&mut self, columns: &[Column], cells: &[String]) -> io::Result<()> {
        let mut line = String::new();
        for ((_, width), cell) in columns.iter().zip(cells) {
            let cell = shown(cell);
            let padding = width.saturating_sub(cell.chars().count()) + 2;
            line.push_str(&cell);
            line.extend(std::iter::repeat_n(' ', padding));
        }
        writeln!(self.out, "{}", line.trim_end())
    }
}

impl<W: Write> Rows<'_, W> {
    pub(super) fn push(&mut self, row: &Row) -> io::Result<()> {
        let first = self.written == 0;
        self.written += 1;
        match self.printer.format {
            OutputFormat::Table => self.printer.cells(self.columns, &row.cells),
            OutputFormat::Json => write!(
                self.printer.out,
                "{}{}",
                if first { "[" } else { ",\n" },
                row.json
            ),
            OutputFormat::Ndjson => writeln!(self.printer.out, "{}", row.json),
        }
    }

    pub(super) fn finish(self) -> io::Result<()> {
        if self.printer.format == OutputFormat::Json {
            writeln!(
                self.printer.out,
                "{}",
                if self.written == 0 { "[]" } else { "]" }
            )?;
        }
        self.printer.out.flush()
    }
}

/// Says something to the person at the terminal.
pub(super) fn say(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", shown(text.as_ref()));
}

pub(super) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Text from a chain may hold escape sequences: a terminal must not see them.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => shown.push('\t'),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

fn flatten(name: &str, value: &Value, fields: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let name = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}.{key}")
                };
                flatten(&name, value, fields);
            }
        }
        Value::String(text) => fields.push((name.to_owned(), text.clone())),
        Value::Null => fields.push((name.to_owned(), "-".to_owned())),
        other => fields.push((name.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: &[Column] = &[("index", 5), ("payload", 0)];

    fn printed(format: OutputFormat, count: u64) -> String {
        let mut printer = Printer::new(format, Vec::new());
        let mut rows = printer.rows(COLUMNS).unwrap();
        for index in 0..count {
            let json = json!({"index": index, "payload": "a"}).to_string();
            let cells = vec![index.to_string(), "a\u{1b}[2J".to_owned()];
            rows.push(&Row { json, cells }).unwrap();
        }
        rows.finish().unwrap();
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn json_is_one_array_and_ndjson_one_line_each() {
        let array: Value = serde_json::from_str(&printed(OutputFormat::Json, 3)).unwrap();
        assert_eq!(array.as_array().unwrap().len(), 3);
        assert_eq!(array[2]["index"], 2);
        assert_eq!(printed(OutputFormat::Json, 0), "[]\n");
        assert_eq!(printed(OutputFormat::Ndjson, 3).lines().count(), 3);
        assert_eq!(printed(OutputFormat::Ndjson, 0), "");
    }

    #[test]
    fn a_table_shows_no_escape_sequence() {
        let table = printed(OutputFormat::Table, 1);
        assert_eq!(table, "INDEX  PAYLOAD\n0      a\\u{1b}[2J\n");
    }

    #[test]
    fn an_object_as_a_table_is_one_line_per_field() {
        let mut printer = Printer::new(OutputFormat::Table, Vec::new());
        let object = json!({"name": "a", "head": {"height": 2, "note": null}});
        printer.object(&object).unwrap();
        let text = String::from_utf8(printer.out).unwrap();
        assert_eq!(text, "name         a\nhead.height  2\nhead.note    -\n");
    }
}
