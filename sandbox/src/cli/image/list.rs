use crate::cli::{Global, Outcome};
use crate::images::{self, Images};
use crate::message::Messages;
use crate::output::{self, Format, binary_size, elapsed, local_time, nanoseconds};
use clap::{Args, ValueEnum};
use sandbox_image::{Summary, Text};
use serde::Serialize;
use std::cmp::Ordering;
use std::io::Write as _;
use std::time::SystemTime;

/// List images in the local store.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  The largest images first:
    sandbox image list --sort=size --order=desc --fields=id,name,size
  For a program:
    sandbox image list --format=json

JSON has whole IDs, sizes in bytes, times in nanoseconds since 1970, and always all fields.")]
pub struct List {
    /// Fields to print, in this order: id, name, size, importtime, lastused.
    #[arg(long, value_name = "LIST", value_parser = fields,
          default_value = "id,name,size,importtime,lastused")]
    fields: Fields<Field>,
    /// Fields to sort by: name, importtime, lastused, size.
    #[arg(long, value_name = "LIST", value_parser = sort_fields, default_value = "importtime")]
    sort: Fields<Field>,
    /// Order of sorting: asc or desc.
    #[arg(
        long,
        value_name = "ORDER",
        value_enum,
        ignore_case = true,
        default_value = "asc",
        hide_possible_values = true
    )]
    order: Order,
    /// Print no headings.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    no_legend: bool,
    /// Print whole IDs, sizes in bytes and full dates.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    full: bool,
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, default_value = "",
          hide_default_value = true, help = Format::HELP)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    Asc,
    Desc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Name,
    Size,
    ImportTime,
    LastUsed,
}

impl Field {
    const ALL: [Self; 5] = [Self::Id, Self::Name, Self::Size, Self::ImportTime, Self::LastUsed];

    fn word(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::Size => "size",
            Self::ImportTime => "importtime",
            Self::LastUsed => "lastused",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Id => "ID",
            Self::Name => "NAME",
            Self::Size => "SIZE",
            Self::ImportTime => "IMPORT TIME",
            Self::LastUsed => "LAST USED",
        }
    }
}

/// A list of fields, as one value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fields<T>(Vec<T>);

/// Reads a list in rkt's way and words.
fn fields(text: &str) -> Result<Fields<Field>, String> {
    let mut fields = Vec::new();
    for word in text.split(',') {
        let field = Field::ALL.into_iter().find(|field| field.word() == word.to_ascii_lowercase());
        let field = field.ok_or_else(|| format!("unknown option {word:?}"))?;
        if fields.contains(&field) {
            return Err(format!("duplicated option {word:?}"));
        }
        fields.push(field);
    }
    Ok(Fields(fields))
}

fn sort_fields(text: &str) -> Result<Fields<Field>, String> {
    let fields = fields(text)?;
    match fields.0.contains(&Field::Id) {
        true => Err("unknown option \"id\"".to_owned()),
        false => Ok(fields),
    }
}

/// An image as rkt's JSON has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    id: String,
    name: String,
    import_time: i64,
    last_used_time: i64,
    size: u64,
}

impl List {
    /// Prints what is in the store.
    pub fn execute(&self, global: &Global) -> Outcome {
        let images = Images::open(global.image_settings()?, Messages::new("list", global.debug))?;
        let mut found = images.list()?;
        sort(&mut found, &self.sort.0, self.order);
        let text = match self.format {
            Format::Text => self.table(&found, SystemTime::now()),
            format => json(&found, format == Format::JsonPretty)?,
        };
        write!(std::io::stdout(), "{text}")?;
        Ok(0)
    }

    fn table(&self, found: &[Summary], now: SystemTime) -> String {
        let mut rows = Vec::new();
        if !self.no_legend {
            rows.push(self.fields.0.iter().map(|field| field.heading().to_owned()).collect());
        }
        for image in found {
            rows.push(self.fields.0.iter().map(|field| self.cell(image, *field, now)).collect());
        }
        output::table(&rows)
    }

    fn cell(&self, image: &Summary, field: Field, now: SystemTime) -> String {
        let time = |time| if self.full { local_time(time) } else { elapsed(time, now) };
        match field {
            Field::Id if self.full => images::key(&image.id),
            Field::Id => images::short(&image.id, 12),
            Field::Name => Text::new(images::listed_name(image)).to_string(),
            Field::Size if self.full => image.size.to_string(),
            Field::Size => binary_size(image.size),
            Field::ImportTime => time(image.imported),
            Field::LastUsed => time(image.last_used),
        }
    }
}

fn sort(images: &mut [Summary], fields: &[Field], order: Order) {
    images.sort_by(|one, two| {
        let by = |field: &Field| match field {
            Field::Id => Ordering::Equal,
            Field::Name => one.name.cmp(&two.name),
            Field::Size => one.size.cmp(&two.size),
            Field::ImportTime => one.imported.cmp(&two.imported),
            Field::LastUsed => one.last_used.cmp(&two.last_used),
        };
        let found = fields.iter().map(by).find(|found| found.is_ne()).unwrap_or(Ordering::Equal);
        match order {
            Order::Asc => found,
            Order::Desc => found.reverse(),
        }
    });
}

/// The images as JSON; none are `null`, as in rkt.
fn json(found: &[Summary], pretty: bool) -> std::io::Result<String> {
    let entry = |image: &Summary| Entry {
        id: images::key(&image.id),
        name: images::listed_name(image),
        import_time: nanoseconds(image.imported),
        last_used_time: nanoseconds(image.last_used),
        size: image.size,
    };
    let entries: Vec<Entry> = found.iter().map(entry).collect();
    output::json(&Some(entries).filter(|entries| !entries.is_empty()), pretty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_image::{Algorithm, Digest, Kind};
    use std::time::{Duration, UNIX_EPOCH};

    fn image(name: &str, version: Option<&str>, size: u64, imported: u64) -> Summary {
        Summary {
            id: Digest::of(Algorithm::Sha512, b"abc"),
            name: name.to_owned(),
            version: version.map(str::to_owned),
            kind: Kind::Aci,
            imported: UNIX_EPOCH + Duration::from_secs(imported),
            last_used: UNIX_EPOCH + Duration::from_secs(imported + 60),
            size,
        }
    }

    fn list(fields: &[Field]) -> List {
        List {
            fields: Fields(fields.to_vec()),
            sort: Fields(vec![Field::ImportTime]),
            order: Order::Asc,
            no_legend: false,
            full: false,
            format: Format::Text,
        }
    }

    /// rkt 1.30, seen: `ID NAME SIZE IMPORT TIME LAST USED`, 12 digits, `19MiB`, `2 minutes ago`.
    #[test]
    fn images_are_listed_as_rkt_lists_them() {
        let images = [image("coreos.com/etcd", Some("v2.3.7"), 19 << 20, 1000)];
        let now = UNIX_EPOCH + Duration::from_secs(1000 + 120);
        let table = list(&Field::ALL).table(&images, now);
        let cells: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split('\t').filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(
            cells,
            [
                ["ID", "NAME", "SIZE", "IMPORT TIME", "LAST USED"],
                [
                    "sha512-ddaf35a19361",
                    "coreos.com/etcd:v2.3.7",
                    "19MiB",
                    "2 minutes ago",
                    "1 minute ago"
                ],
            ]
        );
        let full = List { full: true, no_legend: true, ..list(&[Field::Size, Field::Id]) };
        let id = images::key(&images[0].id);
        assert_eq!(full.table(&images, now), format!("19922944\t{id}\n"));
    }

    #[test]
    fn images_are_sorted_by_one_field_after_the_other() {
        let mut images = [image("b", None, 1, 5), image("a", None, 2, 5), image("c", None, 3, 1)];
        let mut names = |fields: &[Field], order| {
            sort(&mut images, fields, order);
            images.iter().map(|image| image.name.clone()).collect::<String>()
        };
        assert_eq!(names(&[Field::ImportTime, Field::Name], Order::Asc), "cab");
        assert_eq!(names(&[Field::Size], Order::Desc), "cab");
        assert_eq!(names(&[Field::Name], Order::Asc), "abc");
    }

    /// rkt `api/v1`: the names of the members; none at all is `null`.
    #[test]
    fn json_is_rkts() {
        let images = [image("a", None, 7, 1)];
        let id = images::key(&images[0].id);
        assert_eq!(
            json(&images, false).unwrap(),
            format!(
                "[{{\"id\":\"{id}\",\"name\":\"a\",\"import_time\":1000000000,\
                 \"last_used_time\":61000000000,\"size\":7}}]\n"
            )
        );
        assert_eq!(json(&[], true).unwrap(), "null\n");
    }

    #[test]
    fn a_name_steers_no_terminal() {
        let images = [image("a\x1b[2J\tb\n", None, 1, 1)];
        let table = list(&[Field::Name]).table(&images, SystemTime::now());
        assert_eq!(table, "NAME\na\\u{1b}[2J\\tb\\n\n");
    }
}
