//! Draws the model. Pure: the same model makes the same screen. Only the terminal's own sixteen colours and attributes,
//! never a background: it looks right on a light and on a dark screen. A colour says nothing that a word does not say.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Sparkline, Widget};

use super::keys::HELP;
use super::rows::Row;
use super::state::{Graph, Model, Panel, Picture};
use crate::cli::output::{count, span};
use crate::cli::page::{Cell, Page, Tone};

/// Rows of the panel of requests that wait, at most, so that there is room for the others.
const WAITING_ROWS: u16 = 5;
/// A graph and its title.
const GRAPH_ROWS: u16 = 3;
/// Below this, graphs leave no room for rows.
const ROOM_FOR_GRAPHS: u16 = 16;

/// Draws the whole screen.
pub(crate) fn draw(model: &Model, colour: bool, area: Rect, buffer: &mut Buffer) {
    let waiting = u16::try_from(model.rows[Panel::Waiting as usize].len()).unwrap_or(WAITING_ROWS);
    let graphs = if area.height >= ROOM_FOR_GRAPHS { GRAPH_ROWS } else { 0 };
    let [head, of_graphs, sessions, of_waiting, audit, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(graphs),
        Constraint::Fill(3),
        Constraint::Length(1 + waiting.min(WAITING_ROWS)),
        Constraint::Fill(2),
        Constraint::Length(1),
    ])
    .areas(area);
    let pen = Pen { colour };
    pen.line(&header(model), head, buffer);
    if graphs > 0 {
        draw_graphs(model, pen, of_graphs, buffer);
    }
    draw_panel(model, pen, Panel::Sessions, sessions, buffer);
    draw_panel(model, pen, Panel::Waiting, of_waiting, buffer);
    draw_panel(model, pen, Panel::Audit, audit, buffer);
    draw_foot(model, pen, foot, buffer);
    if model.help {
        draw_help(pen, area, buffer);
    }
}

/// All of it as lines of text, for what is no terminal.
pub(crate) fn print(model: &Model, page: &mut Page) {
    page.pieces(header(model));
    for panel in [Panel::Sessions, Panel::Waiting, Panel::Audit] {
        page.line("");
        page.line(Cell::new(title(model, panel), Tone::Strong));
        for row in &model.rows[panel as usize] {
            page.pieces(&row.cells);
        }
    }
}

/// How tones are drawn.
#[derive(Clone, Copy)]
struct Pen {
    colour: bool,
}

impl Pen {
    fn style(self, tone: Tone) -> Style {
        let coloured = |colour| if self.colour { Style::new().fg(colour) } else { Style::new() };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
            Tone::Good => coloured(Color::Green),
            Tone::Warn => coloured(Color::Yellow),
            Tone::Bad => coloured(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    fn line(self, cells: &[Cell], area: Rect, buffer: &mut Buffer) {
        let spans = cells.iter().map(|cell| Span::styled(cell.text(), self.style(cell.tone())));
        Line::from_iter(spans).render(area, buffer);
    }
}

fn header(model: &Model) -> Vec<Cell> {
    let name = Cell::new("ravi-broker", Tone::Strong);
    let Some(Picture { status, attention, .. }) = &model.picture else {
        return vec![name, Cell::new("  connecting", Tone::Warn)];
    };
    let state = match (model.lost, status.locked, status.audit_head.healthy) {
        (true, ..) => Cell::new("reconnecting", Tone::Warn),
        (false, true, _) => Cell::new("LOCKED", Tone::Bad),
        (false, false, false) => Cell::new("AUDIT FAILS", Tone::Bad),
        (false, false, true) => Cell::new("serving", Tone::Good),
    };
    let (sessions, leases) = (count(status.sessions.into(), "session"), count(status.leases.into(), "lease"));
    let mut cells = vec![
        name,
        Cell::from(format!(" {}  ", status.version)),
        state,
        Cell::from(format!("  {sessions}  {leases}  {} waiting", status.approvals)),
    ];
    if !status.management_key_held {
        cells.push(Cell::new("  no key", Tone::Warn));
    }
    let alarms = attention.alarms.len();
    if alarms > 0 {
        cells.push(Cell::new(
            format!("  {}", count(alarms.try_into().unwrap_or(u64::MAX), "alarm")),
            Tone::Bad,
        ));
    }
    if status.dispatches.dead > 0 {
        cells.push(Cell::new(format!("  {} undelivered", status.dispatches.dead), Tone::Warn));
    }
    cells
}

fn draw_graphs(model: &Model, pen: Pen, area: Rect, buffer: &mut Buffer) {
    let graphs = &model.graphs;
    let tenths = |graph: &Graph| format!("{}.{}/s", graph.last() / 10, graph.last() % 10);
    let budget = model.picture.as_ref().map(|picture| picture.status.upstream_budget).unwrap_or_default();
    let of_budget = format!("{}/{} in {}", graphs.used.last(), budget.calls, span(budget.per));
    let drawn = [
        ("served", tenths(&graphs.served), &graphs.served, None),
        ("denied", tenths(&graphs.denied), &graphs.denied, None),
        ("calls to Ravi", tenths(&graphs.upstream), &graphs.upstream, None),
        ("quota", of_budget, &graphs.used, Some(u64::from(budget.calls))),
    ];
    let places: [Rect; 4] = Layout::horizontal([Constraint::Fill(1); 4]).spacing(1).areas(area);
    for ((name, value, graph, most), place) in drawn.into_iter().zip(places) {
        let [title, of_graph] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(place);
        pen.line(&[Cell::from(format!("{name} ")), Cell::new(value, Tone::Strong)], title, buffer);
        let skipped = graph.points.len().saturating_sub(of_graph.width.into());
        let points: Vec<u64> = graph.points.iter().skip(skipped).copied().collect();
        let most = most.unwrap_or_else(|| points.iter().copied().max().unwrap_or_default()).max(1);
        Sparkline::default().data(&points).max(most).render(of_graph, buffer);
    }
}

fn title(model: &Model, panel: Panel) -> String {
    let rows = model.rows[panel as usize].len();
    match panel {
        Panel::Sessions if rows == 0 => "Sessions: none".into(),
        Panel::Sessions => "Sessions".into(),
        Panel::Waiting => format!("Waiting for you: {rows}"),
        Panel::Audit => "Audit, newest first".into(),
    }
}

fn draw_panel(model: &Model, pen: Pen, panel: Panel, area: Rect, buffer: &mut Buffer) {
    if area.is_empty() {
        return;
    }
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let focused = model.panel == panel;
    let title = format!("{} {} ", if focused { "▶" } else { "─" }, title(model, panel));
    let rest = "─".repeat(usize::from(head.width).saturating_sub(title.chars().count()));
    let tone = if focused { Tone::Strong } else { Tone::Dim };
    pen.line(&[Cell::new(title, tone), Cell::new(rest, Tone::Dim)], head, buffer);
    let (rows, selected) = (&model.rows[panel as usize], model.selected(panel));
    let first = first_shown(rows.len(), selected.unwrap_or_default(), body.height.into());
    for ((at, row), place) in rows.iter().enumerate().skip(first).zip(body.rows()) {
        draw_row(row, pen, place, buffer);
        if selected == Some(at) {
            // In the panel without the focus it is marked, too: `a` and `d` work from everywhere.
            let mark = if focused { Modifier::REVERSED } else { Modifier::UNDERLINED };
            buffer.set_style(place, Style::new().add_modifier(mark));
        }
    }
}

fn draw_row(row: &Row, pen: Pen, place: Rect, buffer: &mut Buffer) {
    pen.line(&row.cells, place, buffer);
}

/// Of more rows than fit, those around the selected one.
fn first_shown(rows: usize, selected: usize, room: usize) -> usize {
    selected.saturating_sub(room / 2).min(rows.saturating_sub(room))
}

fn draw_foot(model: &Model, pen: Pen, area: Rect, buffer: &mut Buffer) {
    let (text, style) = match (&model.ask, model.lost, &model.remark) {
        (Some(ask), ..) => {
            (format!("{} y/n", ask.text), pen.style(Tone::Warn).add_modifier(Modifier::REVERSED))
        }
        (None, true, _) => ("the daemon does not answer; trying again".into(), pen.style(Tone::Warn)),
        (None, false, Some((remark, tone))) => (remark.clone(), pen.style(*tone)),
        (None, false, None) => {
            let keys = "q quit  ? help  tab panel  r revoke  a approve  d deny  l lock  u unlock";
            (keys.into(), pen.style(Tone::Dim))
        }
    };
    Line::styled(text, style).render(area, buffer);
}

fn draw_help(pen: Pen, area: Rect, buffer: &mut Buffer) {
    let lines: Vec<Line<'_>> = HELP
        .iter()
        .map(|(key, does)| {
            let key = Span::styled(format!(" {key:<18}"), pen.style(Tone::Strong));
            Line::from_iter([key, Span::from(*does)])
        })
        .collect();
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let width = area.width.min(72);
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(place, buffer);
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(place);
    for (edge, text) in [(head, "─ Keys "), (foot, "─ any key closes this ")] {
        let rest = "─".repeat(usize::from(edge.width).saturating_sub(text.chars().count()));
        pen.line(&[Cell::new(format!("{text}{rest}"), Tone::Strong)], edge, buffer);
    }
    Paragraph::new(lines).render(body, buffer);
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{at, picture};
    use super::super::keys::Key;
    use super::super::state::Event;
    use super::*;

    fn model() -> Model {
        let mut model = Model::default();
        for seconds in 1..=30 {
            let mut picture = picture();
            picture.at = at(seconds);
            picture.status.requests_served += seconds * 3;
            model.apply(Event::Picture(Box::new(picture)));
        }
        model
    }

    fn drawn(model: &Model, colour: bool, width: u16, height: u16) -> Buffer {
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        draw(model, colour, area, &mut buffer);
        buffer
    }

    fn lines(buffer: &Buffer) -> Vec<String> {
        let width = usize::from(buffer.area.width);
        let rows = buffer.content().chunks(width);
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn everything_has_its_place_at_80_by_24_and_at_120_by_40() {
        for (width, height) in [(80, 24), (120, 40)] {
            let lines = lines(&drawn(&model(), true, width, height));
            let text = lines.join("\n");
            assert_eq!(
                lines[0], "ravi-broker 1.2.3  serving  2 sessions  2 leases  1 waiting  1 alarm",
                "{text}"
            );
            assert!(lines[1].starts_with("served 3.0/s") && lines[1].contains("quota 0/60 in 1m"), "{text}");
            assert!(lines[3].contains('█'), "{text}");
            let at = |start: &str| lines.iter().position(|line| line.starts_with(start));
            let [sessions, waiting, audit] =
                ["▶ Sessions ─", "─ Waiting for you: 1 ─", "─ Audit, newest first ─"]
                    .map(|title| at(title).unwrap_or_else(|| panic!("no {title} in\n{text}")));
            assert!(sessions < waiting && waiting < audit);
            assert!(
                lines[sessions + 1].starts_with("notes  pid 4242 claude  age 5m, 11h 55m left  \"to take"),
                "{text}"
            );
            assert!(
                lines[sessions + 2].starts_with("├─ secret/OPENAI_API_KEY  4m 59s left, 3 uses"),
                "{text}"
            );
            assert!(lines[sessions + 3].starts_with("└─ notes  pid 4300 child"), "{text}");
            assert!(lines[sessions + 4].starts_with("   └─ password/github.com"), "{text}");
            assert!(lines[waiting + 1].starts_with("deploy  secret:use secret/STRIPE  pid 77"), "{text}");
            assert!(lines[audit + 1].starts_with("06:00:00  lease.denied     denied   notes"), "{text}");
            assert!(lines[usize::from(height) - 1].starts_with("q quit"), "{text}");
        }
    }

    /// Sixteen colours and attributes: whatever the background is, it stays the terminal's own.
    #[test]
    fn nothing_depends_on_the_background() {
        let mut asked = model();
        asked.apply(Event::Key(Key::Lock));
        let mut helped = model();
        helped.apply(Event::Key(Key::Help));
        for model in [model(), asked, helped, Model::default()] {
            for cell in drawn(&model, true, 80, 24).content() {
                let named = [Color::Reset, Color::Green, Color::Yellow, Color::Red];
                assert!(named.contains(&cell.fg) && cell.bg == Color::Reset, "{cell:?}");
            }
            assert!(drawn(&model, false, 80, 24).content().iter().all(|cell| cell.fg == Color::Reset));
        }
    }

    #[test]
    fn what_an_agent_says_steers_nothing() {
        let mut hostile = picture();
        hostile.sessions[0].reason = "\u{1b}[2J\u{1b}]0;owned\u{7}\nforged".into();
        hostile.sessions[0].executable = "/tmp/\u{1b}c\u{202e}x".into();
        hostile.attention.approvals[0].claimed_reason = "\u{9b}31m\r\u{8}".into();
        hostile.audit.push("{\"seq\":9,\"event\":\"\\u001b[2J\",\"outcome\":\"allowed\"}".into());
        let mut model = Model::default();
        model.apply(Event::Picture(Box::new(hostile)));
        let mut shown = lines(&drawn(&model, true, 200, 40)).join("");
        let mut page = Page::new(false);
        print(&model, &mut page);
        shown.push_str(&page.as_str().replace('\n', ""));
        assert!(shown.contains("\\u{1b}[2J") && shown.contains("\\u{9b}31m"), "{shown}");
        assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
        for key in [Key::Revoke, Key::Approve] {
            model.apply(Event::Key(key));
            assert!(!model.ask.as_ref().unwrap().text.chars().any(char::is_control));
            model.apply(Event::Key(Key::Other));
        }
    }

    #[test]
    fn every_size_is_drawn_however_small() {
        let mut model = model();
        model.apply(Event::Key(Key::Help));
        for width in [0, 1, 7, 40, 300] {
            for height in 0..30 {
                drawn(&model, true, width, height);
            }
        }
    }

    #[test]
    fn of_many_rows_the_selected_one_is_among_those_that_are_shown() {
        for rows in 0..40 {
            for selected in 0..rows {
                let first = first_shown(rows, selected, 7);
                assert!((first..first + 7).contains(&selected) && first <= rows.saturating_sub(7));
            }
        }
    }

    #[test]
    fn a_daemon_that_is_locked_or_gone_is_seen_as_such() {
        let mut model = model();
        model.apply(Event::Lost);
        let text = lines(&drawn(&model, true, 80, 24));
        assert!(text[0].contains("reconnecting") && text[23].contains("does not answer"), "{text:?}");
        let mut locked = picture();
        locked.status.locked = true;
        model.apply(Event::Picture(Box::new(locked)));
        assert!(lines(&drawn(&model, true, 80, 24))[0].contains("LOCKED"));
    }
}
