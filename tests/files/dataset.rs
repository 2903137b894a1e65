//! Data files: the format of the sequences, lists of items, and raw files of every kind. All expectations are worked out
//! by hand from the rules.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rails_wgpu::Error;
use rails_wgpu::dataset::{
    Dataset, ItemNames, PreprocessOptions, Preprocessed, RawFormat, ReadOptions, ReadReport, Sequence, preprocess,
    raw_files, read_item_ids, write_item_ids,
};
use tempfile::TempDir;
use zip::write::{SimpleFileOptions, ZipWriter};

const HEADER: &str = "index,user_id,sequence_item_ids,sequence_ratings,sequence_timestamps\n";

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn zip(folder: &TempDir, files: &[(&str, &[u8])]) -> PathBuf {
    let path = folder.path().join("raw.zip");
    let mut writer = ZipWriter::new(File::create(&path).unwrap());
    for (name, bytes) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn sequence(user_id: i64, item_ids: &[u32], ratings: &[f32], timestamps: &[i64]) -> Sequence {
    Sequence { user_id, item_ids: item_ids.into(), ratings: ratings.into(), timestamps: timestamps.into() }
}

fn of(sequences: Vec<Sequence>) -> Dataset {
    Dataset { sequences, ..Dataset::default() }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// The message of an [`Error::Dataset`] for the one file `name`, without the path before its name.
fn message(error: &Error) -> String {
    let Error::Dataset { path, .. } = error else { panic!("not a dataset error: {error}") };
    error.to_string().replace(&format!("{}/", path.parent().unwrap().display()), "")
}

mod sequences {
    use super::*;

    fn read(text: impl AsRef<[u8]>, options: ReadOptions) -> rails_wgpu::Result<(Dataset, u64)> {
        let folder = folder(&[("s.csv", text.as_ref())]);
        Dataset::read(&folder.path().join("s.csv"), options).map(|(dataset, report)| (dataset, report.bad_lines))
    }

    fn fails(text: impl AsRef<[u8]>) -> String {
        message(&read(text, ReadOptions::default()).unwrap_err())
    }

    #[test]
    fn columns_are_found_by_name_and_numbers_take_any_form() {
        let text = "\u{feff}sequence_timestamps,sex,user_id,sequence_ratings,sequence_item_ids\r\n\
                    \"10,20.0\",1,7,\"4.0,3.5\",\"5, 6\"\r\n30,0,0,4,9\r\n";
        let (dataset, _) = read(text, ReadOptions::default()).unwrap();
        assert_eq!(dataset.sequences, [sequence(7, &[5, 6], &[4.0, 3.5], &[10, 20]), sequence(0, &[9], &[4.0], &[30])]);
    }

    #[test]
    fn malformed_lines_name_file_line_and_expectation() {
        let second = |line: &str| fails(format!("{HEADER}0,1,\"1,2\",\"4,4\",\"1,2\"\n{line}\n"));
        let lists = "expected three lists of one length, found";
        assert_eq!(second("1,2,\"1,2\",4,\"1,2\""), format!("s.csv:3: {lists} 2 item ids, 1 ratings and 2 timestamps"));
        assert_eq!(second("1,2,\"1,2\",\"4,4\",1"), format!("s.csv:3: {lists} 2 item ids, 2 ratings and 1 timestamps"));
        assert_eq!(
            second("1,2,\"1,-2\",\"4,4\",\"1,2\""),
            "s.csv:3: `sequence_item_ids`, entry 2: expected an item id, a whole number from 1 up, found `-2`"
        );
        assert!(second("1,2,0,4,1").ends_with("read with shift_id_by 1)"));
        assert_eq!(
            second("1,-2,1,4,1"),
            "s.csv:3: `user_id`: expected a user id, a whole number from 0 up, found `-2`"
        );
        assert!(second("1,x,1,4,1").contains("s.csv:3: `user_id`: expected a user id"));
        assert!(second("1,2,1,bad,1").contains("s.csv:3: `sequence_ratings`, entry 1: expected a rating"));
        assert!(second("1,2,1,4,soon").contains("s.csv:3: `sequence_timestamps`, entry 1: expected a timestamp"));
        assert_eq!(second("1,2,,,"), "s.csv:3: `sequence_item_ids`: expected at least one event, found none");
        assert_eq!(second("1,2,1"), "s.csv:3: expected 5 fields as in the header, found 3");
        assert_eq!(second("1,2,\"1,4,1\n2,3,1,4,1"), "s.csv:3: a quote is missing: expected them in pairs");
        assert_eq!(second("1,2,\"1,2\",\"4,4\",\"1,2"), "s.csv:3: a quote is missing: expected them in pairs");
        let windows = format!("\r\n{HEADER}0,1,1,4,1\r\n\r\n1,2,1,4,x\r\n");
        assert!(fails(windows).starts_with("s.csv:5: `sequence_timestamps`, entry 1"));
        let latin1 = [HEADER.as_bytes(), b"0,1,1,\xe9,1\n"].concat();
        assert_eq!(fails(latin1), "s.csv:2: not UTF-8 text");
    }

    #[test]
    fn wrong_files_are_told_apart() {
        let columns = "user_id, sequence_item_ids, sequence_ratings, sequence_timestamps";
        assert_eq!(fails(""), format!("s.csv: empty file: expected a header with the columns {columns}"));
        assert_eq!(fails(HEADER), "s.csv: no users: expected a line per user after the header");
        assert_eq!(
            fails("user_id,sequence_item_ids\n1,2\n"),
            format!(
                "s.csv:1: no column `sequence_ratings`: expected {columns} between commas, found \
                 `user_id,sequence_item_ids`; `rails-bench preprocess` makes sequences of a file with an event per line"
            )
        );
        assert_eq!(fails(b"\xe9\n"), format!("s.csv:1: not UTF-8 text: expected a header with the columns {columns}"));
        assert_eq!(fails(b"\xff\xfeu\0s\0"), "s.csv:1: UTF-16 text: save it as UTF-8");
        assert_eq!(fails(b"PK\x03\x04"), "s.csv:1: a zip archive: give the text file that is in it");
        let missing = Dataset::read(Path::new("no/such.csv"), ReadOptions::default()).unwrap_err();
        assert!(missing.to_string().starts_with("cannot read no/such.csv: "), "{missing}");
    }

    #[test]
    fn limit_skip_and_shift() {
        let text = format!("{HEADER}0,9,0,4,1\n1,8,x,4,1\n2,7,5,4,1\n3,6,\"1,1\",4,1\n");
        let options = ReadOptions::default().with_skip_bad_lines(true).with_shift_id_by(1);
        let (dataset, bad) = read(&text, options).unwrap();
        assert_eq!(dataset.sequences, [sequence(9, &[1], &[4.0], &[1]), sequence(7, &[6], &[4.0], &[1])]);
        assert_eq!(bad, 2);
        // The bad lines lie behind the limit.
        let first = read(&text, ReadOptions::default().with_limit(1).with_shift_id_by(1)).unwrap();
        assert_eq!(first.0.sequences.len(), 1);
        assert!(matches!(read(&text, options.with_limit(0)), Err(Error::Argument { .. })));
        let all_bad = read(format!("{HEADER}0,1,x,4,1\n"), options).unwrap_err();
        assert!(message(&all_bad).starts_with("s.csv: no users"), "{all_bad}");
        assert!(message(&all_bad).contains("s.csv:2: `sequence_item_ids`, entry 1"), "{all_bad}");
        let quote = read(format!("{HEADER}0,1,\"1,4,1\n1,2,1,4,1\n"), options).unwrap();
        assert_eq!((quote.0.sequences.len(), quote.1), (1, 1), "a lost quote must not hide the lines behind it");
    }

    #[test]
    fn what_is_probably_wrong_is_counted() {
        let text = format!(
            "{HEADER}0,1,\"1,2\",\"4,4\",\"9,8\"\n1,2,\"1,2\",\"4,4\",\"5,5\"\n2,3,\"1,2\",\"4,4\",\"1700000000000,7\"\n"
        );
        let read = |text: &str| -> ReadReport {
            let folder = folder(&[("s.csv", text.as_bytes())]);
            Dataset::read(&folder.path().join("s.csv"), ReadOptions::default()).unwrap().1
        };
        let report = read(&text);
        assert_eq!((report.unsorted_users, report.millisecond_users, report.events), (2, 1, 6));
        assert_eq!(
            report.warnings(),
            [
                "users with events out of time order: 2; models expect the oldest first",
                "users with timestamps beyond the year 5000: 1; models expect seconds, not milliseconds",
            ]
        );
        assert!(read(&format!("{HEADER}0,1,1,4,9\n")).warnings().is_empty());
    }

    #[test]
    fn gzip_is_unpacked_and_a_damaged_one_named() {
        let text = format!("{HEADER}0,7,\"5,6\",\"4,4\",\"1,2\"\n");
        let packed = gzip(text.as_bytes());
        assert_eq!(read(&packed, ReadOptions::default()).unwrap().0, read(&text, ReadOptions::default()).unwrap().0);
        // Two members in one file, as parallel compressors write them.
        let (first, second) = text.split_at(50);
        let both = [gzip(first.as_bytes()), gzip(second.as_bytes())].concat();
        assert_eq!(read(both, ReadOptions::default()).unwrap().0.sequences.len(), 1);
        let error = read(&packed[..packed.len() / 2], ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("cannot read ") && error.contains("s.csv: "), "{error}");
        let error = Dataset::read(std::env::temp_dir().as_path(), ReadOptions::default()).unwrap_err().to_string();
        assert!(error.ends_with("expected a file, found a folder"), "{error}");
    }

    #[test]
    fn a_long_history_is_written_and_read() {
        // A line of 17 MiB.
        let n = 900_000;
        let long = of(vec![sequence(1, &vec![123_456; n], &vec![4.0; n], &vec![1_000_000_000; n])]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.csv");
        long.write(&path).unwrap();
        assert!(fs::metadata(&path).unwrap().len() > 17 << 20);
        assert!(Dataset::read(&path, ReadOptions::default()).unwrap().0 == long);
    }

    #[test]
    fn users_keep_the_ids_of_the_raw_data() {
        let mut dataset = of(vec![sequence(2, &[1], &[4.0], &[1]), sequence(1, &[3], &[5.0], &[2])]);
        dataset.original_users = [(1, "a \"quoted\", é".to_string()), (2, "B".to_string())].into();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.csv");
        dataset.write(&path).unwrap();
        let first =
            "index,user_id,sequence_item_ids,sequence_ratings,sequence_timestamps,original_user_id\n0,2,1,4,1,B\n";
        assert!(fs::read_to_string(&path).unwrap().starts_with(first));
        assert_eq!(Dataset::read(&path, ReadOptions::default()).unwrap().0, dataset);
    }

    #[test]
    fn a_file_of_the_reference_survives_but_for_line_ends() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/tiny.csv");
        let (dataset, report) = Dataset::read(&path, ReadOptions::default()).unwrap();
        assert_eq!((dataset.sequences.len(), report.bad_lines), (96, 0));
        assert_eq!(dataset.sequences[2], {
            sequence(111, &[163, 164, 167], &[5.0, 4.0, 4.0], &[1370435024, 1370719560, 1370789081])
        });
        let listed = fs::read_to_string(path.with_extension("json")).unwrap();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let listed: Vec<u32> = serde_json::from_value(listed["all_item_ids"].clone()).unwrap();
        assert!(dataset.sequences.iter().flat_map(|s| &s.item_ids).all(|id| listed.contains(id)));
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy.csv");
        dataset.write(&copy).unwrap();
        let text = |path: &Path| fs::read_to_string(path).unwrap().replace("\r\n", "\n");
        assert!(text(&copy) == text(&path));
    }

    #[test]
    fn writing_is_short_and_safe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.csv");
        let good = of(vec![sequence(3, &[1, 2], &[4.0, 0.5], &[7, 8]), sequence(1, &[9], &[5.0], &[0])]);
        good.write(&path).unwrap();
        let text = format!("{HEADER}0,3,\"1,2\",\"4,0.5\",\"7,8\"\n1,1,9,5,0\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        for bad in [
            sequence(1, &[], &[], &[]),
            sequence(1, &[0], &[1.0], &[1]),
            sequence(-1, &[1], &[1.0], &[1]),
            sequence(1, &[1], &[f32::NAN], &[1]),
            sequence(1, &[1], &[1.0, 2.0], &[1]),
        ] {
            let error = of(vec![bad]).write(&path).unwrap_err();
            assert!(
                error.to_string().starts_with("dataset: expected what Dataset::read accepts, found user"),
                "{error}"
            );
        }
        assert!(Dataset::default().write(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "the old file must survive");
        let error = good.write(&folder.path().join("none/out.csv")).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot create ") && error.to_string().contains("none/out.csv"),
            "{error}"
        );
        assert!(good.write(folder.path()).is_err(), "a folder is in the way");
    }

    fn any_sequence() -> impl Strategy<Value = Sequence> {
        let rating = prop_oneof![(0..=10u8).prop_map(|half| f32::from(half) / 2.0), any::<f32>()];
        let event = (1..=u32::MAX, rating.prop_filter("finite", |r| r.is_finite()), any::<i64>());
        (0..=i64::MAX, prop::collection::vec(event, 1..20)).prop_map(|(user_id, events)| Sequence {
            user_id,
            item_ids: events.iter().map(|event| event.0).collect(),
            ratings: events.iter().map(|event| event.1).collect(),
            timestamps: events.iter().map(|event| event.2).collect(),
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(sequences in prop::collection::vec(any_sequence(), 1..8)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("s.csv");
            let dataset = of(sequences);
            dataset.write(&path).unwrap();
            prop_assert_eq!(Dataset::read(&path, ReadOptions::default()).unwrap().0, dataset);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = [HEADER.as_bytes(), &tail].concat();
            let _ = read(&text, ReadOptions::default().with_skip_bad_lines(true));
            let inter = [b"user_id\titem_id\n", &tail[..]].concat();
            let archive = [b"PK\x03\x04", &tail[..]].concat();
            let folder = folder(&[("m", &tail), ("x.inter", &inter), ("x.item", &tail), ("x.zip", &archive)]);
            let _ = preprocess(RawFormat::Ml1m, &folder.path().join("x.zip"), PreprocessOptions::default());
            let _ = ItemNames::read(None, Some(&folder.path().join("m")));
            let _ = preprocess(RawFormat::Csv, &folder.path().join("x.inter"), PreprocessOptions::default());
            let _ = read_item_ids(&folder.path().join("m"));
            let _ = preprocess(RawFormat::Recbole, folder.path(), PreprocessOptions::default());
        }
    }
}

mod items {
    use super::*;

    fn ids(text: &str) -> Result<Vec<u32>, String> {
        let folder = folder(&[("items", text.as_bytes())]);
        read_item_ids(&folder.path().join("items")).map_err(|error| message(&error))
    }

    #[test]
    fn every_form_keeps_its_order() {
        for text in [
            "3\n1\n2\n",
            "\u{feff}3\r\n1\r\n\r\n2",
            "item_id\n3\n1\n2\n",
            "title,movie_id\n\"A, B\",3\nC,1\nD,2\n",
            "movieId,title\n3,A\n1,B\n2,C\n",
            "item_id:token\ttitle:token_seq\n3\t\"A\n1\tB\n2\tC\n",
            "3::A::x\n1::B::y\n2::C::z\n",
            "3|A, B|x\n1|B|y\n2|C|z\n",
            "ITEM,title\n3,\"A\n\nB\"\n1,\"\"\n2,C\n",
        ] {
            assert_eq!(ids(text), Ok(vec![3, 1, 2]), "{text}");
        }
        let folder = folder(&[("ids.gz", &gzip(b"3\n1\n2\n"))]);
        assert_eq!(read_item_ids(&folder.path().join("ids.gz")).unwrap(), [3, 1, 2]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(ids("3\n1\n\n3\n"), Err("items:4: item 3 is already on line 1".into()));
        assert_eq!(ids("\r\n3\r\n1\r\n\r\n3\r\n"), Err("items:5: item 3 is already on line 2".into()));
        assert_eq!(ids("movie_id\n3\n3\n"), Err("items:3: item 3 is already on line 2".into()));
        assert!(ids("3\nx\n").unwrap_err().starts_with("items:2: expected an item id"));
        assert!(ids("3\n0\n").unwrap_err().starts_with("items:2: expected an item id"));
        let columns = "item_id, movie_id, item, iid, product_id, parent_asin, asin";
        let header = format!("expected an id per line, or a header with one of {columns} between commas or tabs");
        assert_eq!(ids("a,b\n1,2\n"), Err(format!("items:1: {header}, found `a,b`")));
        assert_eq!(ids("item_id\n"), Err("items:1: no items: expected one per line after the header".into()));
        // A lost quote is said to be where it is.
        let lost = format!("item_id,title\n1,\"A\n{}", "2,B\n".repeat(100));
        assert_eq!(ids(&lost), Err("items:2: a quote is missing: expected them in pairs".into()));
        assert_eq!(ids("3\n1,2\n"), Err("items:2: expected 1 fields as in the first line, found 2".into()));
        assert_eq!(ids(""), Err("items: empty file: expected a list of items".into()));
        assert_eq!(ids("1::A::x\nB\n"), Err("items:2: expected 3 fields as in the first line, found 1".into()));
    }

    #[test]
    fn written_ids_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ids.txt");
        write_item_ids(&path, &[5, 2, 9], &[]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "5\n2\n9\n");
        assert_eq!(read_item_ids(&path).unwrap(), [5, 2, 9]);
        assert_eq!(ItemNames::read(Some(&path), None).unwrap().id(5), "5");
        let originals = ["B0, \"x\"", "a", "é"].map(str::to_string);
        write_item_ids(&path, &[5, 2, 9], &originals).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "item_id,original_id\n5,\"B0, \"\"x\"\"\"\n2,a\n9,é\n");
        assert_eq!(read_item_ids(&path).unwrap(), [5, 2, 9]);
        // Titles go by the ids of the raw data then; `x` is not in the list.
        let titles = folder.path().join("titles.csv");
        fs::write(&titles, "asin,title\nx,None\na,\"Toy\r\n Story\"\n\"B0, \"\"x\"\"\",Quoted\n").unwrap();
        let names = ItemNames::read(Some(&path), Some(&titles)).unwrap();
        assert_eq!((names.id(5), names.id(9), names.id(7), names.id(1 << 40)), {
            ("B0, \"x\"".into(), "é".into(), "7".into(), (1u64 << 40).to_string())
        });
        assert_eq!((names.title(5), names.title(2), names.title(9)), (Some("Quoted"), Some("Toy Story"), None));
        let error = write_item_ids(&path, &[5, 2], &originals).unwrap_err().to_string();
        assert_eq!(error, "original ids: expected 2, one per item, or none, found 3");
    }

    #[test]
    fn titles_of_every_form() {
        let files: [(&str, &[u8]); 6] = [
            ("u.item", b"2|Mis\xe9rables, Les (1995)|x|0\n1|Toy Story (1995)|y|1\n"),
            ("movies.dat", b"2::Mis\xe9rables, Les (1995)::Drama\n1::Toy Story (1995)::Animation|Comedy\n"),
            (
                "movies.csv",
                "movieId,title,genres\n2,\"Misérables, Les (1995)\",Drama\n1,Toy Story (1995),x\n".as_bytes(),
            ),
            (
                "m.item",
                "item_id:token\tmovie_title:token_seq\n2\tMisérables, Les (1995)\n1\tToy Story (1995)\n".as_bytes(),
            ),
            ("ids.txt", b"1\n2\n"),
            ("twice.csv", b"movie_id,title\n1,A\n1,B\n"),
        ];
        let folder = folder(&files);
        let titles = |name: &str| ItemNames::read(None, Some(&folder.path().join(name)));
        for name in ["movies.dat", "movies.csv", "m.item", "u.item"] {
            let names = titles(name).unwrap();
            let found = [1, 2, 3].map(|id| names.title(id));
            assert_eq!(found, [Some("Toy Story (1995)"), Some("Misérables, Les (1995)"), None], "{name}");
        }
        let none = "ids.txt: no titles: expected `id::title::genres` or a header with a column `title`";
        assert_eq!(message(&titles("ids.txt").unwrap_err()), none);
        assert_eq!(message(&titles("twice.csv").unwrap_err()), "twice.csv:3: item 1 is already on line 2");
    }
}

mod raw {
    use super::*;

    type Files<'a> = &'a [(&'a str, &'a [u8])];

    /// The same files as a folder and as an archive must give the same.
    fn both(format: &str, files: Files) -> Preprocessed {
        let folder = folder(files);
        let archives = tempfile::tempdir().unwrap();
        let format: RawFormat = format.parse().unwrap();
        let unpacked = preprocess(format, folder.path(), PreprocessOptions::default()).unwrap();
        let packed = preprocess(format, &zip(&archives, files), PreprocessOptions::default()).unwrap();
        assert_eq!(unpacked.dataset, packed.dataset);
        assert_eq!(unpacked.item_ids, packed.item_ids);
        assert_eq!(unpacked.report, packed.report);
        assert_eq!(fs::read_dir(archives.path()).unwrap().count(), 1, "nothing may be extracted");
        unpacked
    }

    fn fails(format: &str, files: Files) -> String {
        let folder = folder(files);
        let error = preprocess(format.parse().unwrap(), folder.path(), PreprocessOptions::default()).unwrap_err();
        message(&error)
    }

    const RATINGS_DAT: &[u8] = b"2::20::5::300\n2::10::3::100\n2::30::4::100\n1::30::1::7\n2::11::2::100\n";
    const MOVIES_DAT: &[u8] = b"30::Mis\xe9rables (1995)::Drama\n10::A::x\n20::B::x\n11::C::x\n40::Never rated::x\n";

    #[test]
    fn ml_1m_sorts_by_time_and_keeps_file_order_in_ties() {
        let result = both("ml-1m", &[("ml-1m/ratings.dat", RATINGS_DAT), ("ml-1m/movies.dat", MOVIES_DAT)]);
        assert_eq!(
            result.dataset.sequences,
            [
                sequence(1, &[30], &[1.0], &[7]),
                // 10, 30, 11 share a second and stand in this order in the file.
                sequence(2, &[10, 30, 11, 20], &[3.0, 4.0, 2.0, 5.0], &[100, 100, 100, 300]),
            ]
        );
        assert_eq!(result.item_ids, [30, 10, 20, 11, 40]);
        let report = &result.report;
        assert_eq!((report.rows_read, report.users_before, report.users_after), (5, 2, 2));
        assert_eq!((report.items_before, report.items_after, report.items_listed), (4, 4, 5));
        assert_eq!((report.min_length, report.max_length, report.mean_length), (1, 4, 2.5));
        assert_eq!((report.max_item_id, report.items_unlisted), (40, 0));
        assert_eq!(
            report.warnings,
            [
                "expected 3706 rated items as in the published data set, found 4",
                "expected 3952 as the largest item id as in the published data set, found 30"
            ]
        );
    }

    #[test]
    fn ml_1m_as_a_single_file_looks_beside_it() {
        let folder =
            folder(&[("renamed.dat", RATINGS_DAT), ("movies.dat", MOVIES_DAT), ("alone/ratings.dat", RATINGS_DAT)]);
        let single =
            |name| preprocess(RawFormat::Ml1m, &folder.path().join(name), PreprocessOptions::default()).unwrap();
        assert_eq!(single("renamed.dat").item_ids, [30, 10, 20, 11, 40]);
        let alone = single("alone/ratings.dat");
        assert_eq!(alone.item_ids, [10, 11, 20, 30]);
        assert!(alone.report.warnings.contains(&"no `movies.dat`: the list of items holds the rated ones only".into()));
    }

    #[test]
    fn ml_20m_finds_columns_by_name() {
        let ratings = b"userId,movieId,rating,timestamp\r\n7,2,3.5,20\r\n7,1,4.0,10\r\n3,9,0.5,1\r\n";
        let movies = b"movieId,title,genres\n2,\"American President, The (1995)\",x\n1,A,x\n";
        let result = both("ml-20m", &[("ratings.csv", ratings), ("movies.csv", movies)]);
        assert_eq!(
            result.dataset.sequences,
            [sequence(3, &[9], &[0.5], &[1]), sequence(7, &[1, 2], &[4.0, 3.5], &[10, 20])]
        );
        assert_eq!(result.item_ids, [2, 1]);
        assert_eq!((result.report.items_unlisted, result.report.max_item_id), (1, 9));
        assert!(result.report.warnings.iter().any(|warning| warning.starts_with("1 items have events but")));
    }

    /// Raw counts: items c 6, a 5, b 5, d 1; users u1 6, u2 5, u3 5, u4 1.
    /// d is rare and costs u2 a row (4 left); u4 is rare and costs item c a row.
    /// Codes of what is left: users u1 0, u2 1, u3 2; items a 0, b 1, c 2. Then u2 with 4 rows is dropped, without
    /// coding anew: u3 keeps code 2.
    const BOOKS: &[u8] = b"u3,a,1.0,50\nu3,b,2.0,40\nu3,c,3.0,30\nu3,a,4.0,20\nu3,b,5.0,10\n\
        u2,d,1.0,1\nu2,c,1.0,2\nu2,c,1.0,3\nu2,a,1.0,4\nu2,b,1.0,5\n\
        u1,a,5.0,9\nu1,b,4.0,9\nu1,c,3.0,9\nu1,c,2.0,8\nu1,b,1.0,7\nu1,a,1.0,7\nu4,c,1.0,1\n";

    #[test]
    fn amzn_books_counts_first_then_drops_then_codes_then_drops() {
        let result = both("amzn-books", &[("ratings_Books.csv", BOOKS)]);
        assert_eq!(
            result.dataset.sequences,
            [
                sequence(0, &[2, 1, 3, 1, 2, 3], &[1.0, 1.0, 2.0, 5.0, 4.0, 3.0], &[7, 7, 8, 9, 9, 9]),
                sequence(2, &[2, 1, 3, 2, 1], &[5.0, 4.0, 3.0, 2.0, 1.0], &[10, 20, 30, 40, 50]),
            ]
        );
        assert_eq!(result.item_ids, [1, 2, 3]);
        let report = &result.report;
        assert_eq!((report.dropped_rare_items, report.dropped_rare_users, report.dropped_short_users), (1, 1, 4));
        assert_eq!((report.rows_read, report.users_before, report.items_before), (17, 4, 4));
        assert_eq!((report.users_after, report.items_after, report.items_listed), (2, 3, 3));
        assert!(report.users_recoded && report.items_recoded);
        assert!(report.to_string().contains("users before / after   4 / 2"), "{report}");
    }

    #[test]
    fn amzn_books_lists_items_that_only_short_users_had() {
        // z has 5 rows, all of user v, who also has a row of rare y: 6 rows raw, 5 left. w: 4 rows of x and one of y.
        // x: 4 + 1 = 5 rows, so w keeps 4 rows and is dropped after coding; x stays in the list as code 0.
        let rows =
            b"w,x,1,1\nw,x,1,2\nw,x,1,3\nw,x,1,4\nw,y,1,5\nv,z,1,1\nv,z,1,2\nv,z,1,3\nv,z,1,4\nv,z,1,5\nt,x,1,1\n";
        let result = both("amzn-books", &[("ratings_Books.csv", rows)]);
        assert_eq!(result.dataset.sequences, [sequence(0, &[2; 5], &[1.0; 5], &[1, 2, 3, 4, 5])]);
        assert_eq!(result.item_ids, [1, 2]);
        assert_eq!((result.report.items_after, result.report.items_listed, result.report.max_item_id), (1, 2, 2));
    }

    #[test]
    fn recbole_keeps_numbers() {
        let inter = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n\
            12\t5\t4.0\t20\n12\t300\t3\t10.0\n4\t5\t1\t8.8e8\n";
        let item = b"item_id:token\tmovie_title:token_seq\n300\tC\n5\tA\n7\tB\n";
        let result = both("recbole", &[("ml/ml.inter", inter), ("ml/ml.item", item), ("ml/._ml.inter", b"\0\xff")]);
        assert_eq!(
            result.dataset.sequences,
            [sequence(4, &[5], &[1.0], &[880_000_000]), sequence(12, &[300, 5], &[3.0, 4.0], &[10, 20])]
        );
        assert_eq!(result.item_ids, [300, 5, 7]);
        assert!(!result.report.users_recoded && !result.report.items_recoded);
    }

    #[test]
    fn recbole_codes_other_ids_and_does_without_ratings_and_times() {
        let inter = b"item_id:token\textra:float\tuser_id:token\nb\t0\t12\nB\t0\t4\na\t0\t12\n";
        let result = both("recbole", &[("x.inter", inter), ("x.item", b"item_id:token\nb\nc\na\nB\n")]);
        // Sorted as bytes: B, a, b, c.
        assert_eq!(
            result.dataset.sequences,
            [sequence(4, &[1], &[1.0], &[0]), sequence(12, &[3, 2], &[1.0, 1.0], &[0, 0])]
        );
        assert_eq!(result.item_ids, [3, 4, 2, 1]);
        assert_eq!((result.report.users_recoded, result.report.items_recoded), (false, true));
        let unlisted = both("recbole", &[("x.inter", inter)]);
        assert_eq!(unlisted.item_ids, [1, 2, 3]);
    }

    fn names(names: &[(i64, &str)]) -> std::collections::HashMap<i64, String> {
        names.iter().map(|&(id, name)| (id, name.to_string())).collect()
    }

    #[test]
    fn ml_100k_has_tabs_and_bars() {
        let files: Files =
            &[("ml-100k/u.data", b"196\t242\t3\t881250949\n186\t302\t3\t5\n"), ("ml-100k/u1.base", b"x"), {
                ("ml-100k/u.item", b"242|Kolya (1996)|24-Jan-1997||http://x|0\n302|L.A.|x||y|1\n7|Caf\xe9|x||y|1\n")
            }];
        let result = both("ml-100k", files);
        let expected = [sequence(186, &[302], &[3.0], &[5]), sequence(196, &[242], &[3.0], &[881250949])];
        assert_eq!(
            (result.dataset.sequences.as_slice(), result.item_ids.as_slice()),
            (&expected[..], &[242, 302, 7][..])
        );
        assert!(result.dataset.original_users.is_empty() && result.original_items.is_empty());
    }

    #[test]
    fn csv_has_columns_of_any_order_separator_and_ids() {
        let expected = [sequence(1, &[2, 1], &[5.0, 2.5], &[10, 20]), sequence(2, &[2], &[1.0], &[7])];
        for text in [
            "userId,itemId,rating,timestamp\nalice,a,2.5,20\nbob,b,1,7\nalice,b,5,10\n",
            "\u{feff}\"timestamp\";\"ITEM\";\"score\";\"user\";\"note\"\r\n20;a;2.5;alice;\"x;y\"\r\n7;b;1;bob;\r\n10;b;5;alice;z\r\n",
            "ts\tasin\trating\tuid\n20\ta\t2.5\talice\n7\tb\t1\tbob\n10\tb\t5\talice\n",
            "time|item_id|rating|user_id\n20|a|2.5|alice\n7|b|1|bob\n10|b|5|alice\n",
        ] {
            let result = both("csv", &[("events.csv", text.as_bytes())]);
            assert_eq!(result.dataset.sequences, expected, "{text}");
            assert_eq!(result.dataset.original_users, names(&[(1, "alice"), (2, "bob")]));
            assert_eq!((result.item_ids, result.original_items), (vec![1, 2], vec!["a".to_string(), "b".to_string()]));
            let packed = both("csv", &[("events.csv.gz", &gzip(text.as_bytes()))]);
            assert_eq!(packed.dataset.sequences, expected, "{text}");
        }
        let plain = both("csv", &[("e.csv", b"user_id,item_id\n9,\"4\"\n9,\"3\"\n")]);
        assert_eq!(plain.dataset, of(vec![sequence(9, &[4, 3], &[1.0; 2], &[0; 2])]));
        assert_eq!((plain.item_ids, plain.original_items.len()), (vec![3, 4], 0));
        let untimed = "no column of timestamps: the events of a user keep the order of the file";
        assert_eq!(plain.report.warnings, [untimed]);
        let text_user = both("csv", &[("e.csv", b"user_id,item_id\n\"a,b\",7\n")]);
        assert_eq!(text_user.dataset.original_users, names(&[(1, "a,b")]));
        assert_eq!((text_user.item_ids, text_user.original_items.len()), (vec![7], 0));
        let milliseconds = both("csv", &[("e.csv", b"user_id,item_id,timestamp\n9,4,1700000000000\n")]);
        assert!(milliseconds.report.warnings[0].starts_with("users with timestamps beyond the year 5000: 1;"));
    }

    #[test]
    fn files_that_would_be_read_are_known() {
        let folder =
            folder(&[("ratings.dat", b""), ("a/movies.dat.gz", b""), ("x.inter", b""), ("x.item", b""), ("y", b"")]);
        let files = |format: RawFormat, input: &str| {
            let mut files = raw_files(format, &folder.path().join(input)).unwrap();
            files.sort();
            let inside = |file: &PathBuf| file.strip_prefix(folder.path()).unwrap().to_string_lossy().into_owned();
            files.iter().map(inside).collect::<Vec<_>>()
        };
        assert_eq!(files(RawFormat::Ml1m, ""), ["a/movies.dat.gz", "ratings.dat"]);
        assert_eq!(files(RawFormat::Ml1m, "y"), ["ratings.dat", "y"]);
        assert_eq!(files(RawFormat::Recbole, "x.inter"), ["x.inter", "x.inter", "x.item"]);
        assert_eq!(files(RawFormat::Txt, ""), [""; 0]);
    }

    #[test]
    fn txt_is_in_order_already() {
        let result = both("txt", &[("Beauty.txt", b"2 9\n2 3\n1 3\n\n2 9\n")]);
        assert_eq!(
            result.dataset.sequences,
            [sequence(1, &[3], &[1.0], &[0]), sequence(2, &[9, 3, 9], &[1.0; 3], &[0; 3])]
        );
        assert_eq!(result.item_ids, [3, 9]);
    }

    #[test]
    fn malformed_rows_name_file_and_line() {
        let dat = |row: &str| fails("ml-1m", &[("ratings.dat", format!("1::2::3::4\n{row}\n").as_bytes())]);
        assert_eq!(dat("1::2::3"), "ratings.dat:2: expected 4 fields between \"::\", found 3");
        assert_eq!(dat("1::2::x::4"), "ratings.dat:2: expected a rating, a finite number, found `x`");
        assert!(
            dat("1::0::3::4").starts_with("ratings.dat:2: expected an item id, a whole number from 1 up, found `0`")
        );
        assert!(dat("-1::1::3::4").starts_with("ratings.dat:2: expected a user id"));
        assert!(dat("1::1::3::now").starts_with("ratings.dat:2: expected a timestamp"));
        assert_eq!(dat("1::::3::4"), "ratings.dat:2: expected a user and an item, found an empty field");
        assert_eq!(fails("ml-1m", &[("ratings.dat", b"1::2::3::\xff\n")]), "ratings.dat:1: not UTF-8 text");
        let other_format = "; a file with a header that names its columns is read as the format `csv`";
        let long = vec![b'1'; 1 << 20];
        assert_eq!(
            fails("ml-1m", &[("ratings.dat", &long)]),
            format!("ratings.dat:1: expected 4 fields between \"::\", found 1{other_format}")
        );
        assert_eq!(
            fails("ml-1m", &[("ratings.dat", RATINGS_DAT), ("movies.dat", b"1::A::x\n1::B::x\n")]),
            "movies.dat:2: item 1 is already on line 1"
        );
        let csv = |text: &str| fails("ml-20m", &[("ratings.csv", text.as_bytes())]);
        assert_eq!(csv(""), "ratings.csv: empty file: expected a header");
        let column = |names: &str| format!("ratings.csv:1: expected a header with a column {names} between");
        assert_eq!(csv("a,b\n"), {
            let names = column("user_id, user, uid or reviewer_id");
            format!("{names} commas, tabs, semicolons or bars; found `a,b`{other_format}")
        });
        let no_time =
            format!("{} commas; found `userId,movieId,rating`{other_format}", column("timestamp, time or ts"));
        assert_eq!(csv("userId,movieId,rating\n"), no_time);
        let inter = fails("recbole", &[("x.inter", b"user_id,item_id\n1,2\n")]);
        assert!(inter.contains("between tabs; files with other separators are read as the format `csv`"), "{inter}");
        assert_eq!(fails("amzn-books", &[("ratings_Books.csv", b"user,item,rating,timestamp\n")]), {
            format!("ratings_Books.csv:1: expected a rating, a finite number, found `rating`{other_format}")
        });
        assert_eq!(fails("txt", &[("a.txt", b"1 2\n1\n")]), "a.txt:2: expected 2 fields between blanks, found 1");
        let twice = b"item_id:token\na\na\n";
        let inter = b"user_id:token\titem_id:token\n1\ta\n";
        assert_eq!(
            fails("recbole", &[("x.inter", inter), ("x.item", twice)]),
            "x.item:3: item `a` is already on line 2"
        );
    }

    #[test]
    fn wrong_inputs_are_told_apart() {
        let none = fails("ml-1m", &[("readme", b"")]);
        assert!(none.ends_with(": expected a file `ratings.dat` here or one folder below, found none"), "{none}");
        let two = fails("txt", &[("a.txt", b"1 2\n"), ("b.txt", b"1 2\n")]);
        assert!(two.contains(": expected one file `.txt`, found ") && two.contains("a.txt, "), "{two}");
        let folder = folder(&[("broken.zip", b"PK\x03\x04 and no more"), ("few.csv", b"u,i,1,1\n")]);
        let read = |format, path: &Path| preprocess(format, path, PreprocessOptions::default()).unwrap_err();
        let broken = message(&read(RawFormat::Ml1m, &folder.path().join("broken.zip")));
        assert!(broken.starts_with("broken.zip: not a readable zip archive: "), "{broken}");
        let other = message(&read(RawFormat::Ml1m, &zip(&folder, &[("../evil.dat", b"1::1::1::1\n")])));
        assert_eq!(other, "raw.zip: expected a member `ratings.dat`, found none");
        let few = message(&read(RawFormat::AmznBooks, &folder.path().join("few.csv")));
        assert_eq!(few, "few.csv: no events left of 1 rows read and 0 malformed");
        let absent = read(RawFormat::Txt, &folder.path().join("absent"));
        assert!(absent.to_string().starts_with("cannot read "), "{absent}");
        let format = "ml-2m".parse::<RawFormat>().unwrap_err();
        let formats = "csv, ml-100k, ml-1m, ml-20m, amzn-books, recbole or txt";
        assert_eq!(format.to_string(), format!("format: expected {formats}, found `ml-2m`"));
    }

    #[test]
    fn bad_rows_are_skipped_and_counted_on_request() {
        let folder = folder(&[("ratings.dat", b"1::2::3::4\n1::x::3::4\n\xff\n1::5::3::3\n")]);
        let seen = RefCell::new(Vec::new());
        let progress = |lines| seen.borrow_mut().push(lines);
        let options = PreprocessOptions::default().with_skip_bad_lines(true).with_progress(&progress);
        let result = preprocess(RawFormat::Ml1m, folder.path(), options).unwrap();
        assert_eq!(result.dataset.sequences, [sequence(1, &[5, 2], &[3.0, 3.0], &[3, 4])]);
        assert_eq!((result.report.rows_read, result.report.bad_lines), (2, 2));
        assert!(result.report.first_bad_line.unwrap().contains("ratings.dat:2: expected an item id"));
        assert_eq!(*seen.borrow(), [4]);
    }
}
