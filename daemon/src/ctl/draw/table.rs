//! Tables: columns that wrap on a terminal, and stay whole in a pipe.

use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, TableStyle};

use super::{Look, Paint};

/// A table in the making.
pub struct Table<'a> {
    look: &'a Look,
    headings: Vec<&'a str>,
    /// Whether a column may be made narrower.
    is_flexible: Vec<bool>,
    /// Whether a column holds numbers.
    is_number: Vec<bool>,
    rows: Vec<Vec<Cell>>,
}

/// A cell: its text, its colour, and whether it is a number.
pub struct Field {
    text: String,
    paint: Option<Paint>,
    is_number: bool,
}

impl Field {
    /// Words.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), paint: None, is_number: false }
    }

    /// A number, which stands at the right.
    pub fn number(text: impl Into<String>) -> Self {
        Self { text: text.into(), paint: None, is_number: true }
    }

    /// In a colour.
    pub fn paint(self, paint: Paint) -> Self {
        Self { paint: Some(paint), ..self }
    }
}

impl<'a> Table<'a> {
    /// A table with these headings, or none where all are empty. Columns whose heading ends in `*` are made narrower where
    /// there is no room.
    pub fn new(look: &'a Look, headings: &[&'a str]) -> Self {
        Self {
            look,
            headings: headings.iter().map(|heading| heading.trim_end_matches('*')).collect(),
            is_flexible: headings.iter().map(|heading| heading.ends_with('*')).collect(),
            is_number: vec![false; headings.len()],
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, fields: impl IntoIterator<Item = Field>) {
        let fields: Vec<Field> = fields.into_iter().collect();
        for (is_number, field) in self.is_number.iter_mut().zip(&fields) {
            *is_number |= field.is_number;
        }
        self.rows.push(fields.into_iter().map(|field| self.cell(field)).collect());
    }

    fn heading(&self, text: &str, is_number: bool) -> Cell {
        let cell = Cell::new(text);
        let cell = if self.look.colour { cell.fg(Color::DarkGrey) } else { cell };
        if is_number { cell.set_alignment(CellAlignment::Right) } else { cell }
    }

    fn cell(&self, field: Field) -> Cell {
        let mut cell = Cell::new(field.text);
        if field.is_number {
            cell = cell.set_alignment(CellAlignment::Right);
        }
        match field.paint.filter(|_| self.look.colour) {
            Some(Paint::Strong) => cell.add_attribute(comfy_table::Attribute::Bold),
            Some(Paint::Faint) => cell.fg(Color::DarkGrey),
            Some(Paint::Good) => cell.fg(Color::Green),
            Some(Paint::Busy) => cell.fg(Color::Cyan),
            Some(Paint::Calm) => cell.fg(Color::Yellow),
            Some(Paint::Bad) => cell.fg(Color::Red),
            None => cell,
        }
    }

    /// Its lines.
    pub fn draw(self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(TableStyle::new());
        if self.look.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        if self.headings.iter().any(|text| !text.is_empty()) {
            let headings = self.headings.iter().zip(&self.is_number);
            let headings = headings.map(|(text, is_number)| self.heading(text, *is_number));
            table.set_header(headings.collect::<Vec<_>>());
        }
        table.add_rows(self.rows);
        table.set_content_arrangement(ContentArrangement::Disabled);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        if self.look.terminal {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(u16::try_from(self.look.width).unwrap_or(u16::MAX));
            for (column, is_flexible) in table.column_iter_mut().zip(self.is_flexible) {
                if !is_flexible {
                    column.set_constraint(ColumnConstraint::ContentWidth);
                }
            }
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}
