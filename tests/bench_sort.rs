use crate::store::{Site, device, sensor, at};
use tidegate::store::batch::{Batch, Reading};
use std::time::Instant;
#[test]
#[ignore]
fn bench_sort() {
    for sqlite in [false, true] {
    for devices in [1000u32, 10_000] {
        let site = if sqlite { Site::sqlite() } else { Site::postgres() };
        let (mut writer, _) = site.writer();
        let mut first = Batch { position: 1, generation: 1, messages: 1, ..Batch::default() };
        for d in 0..devices { first.devices.push(device(d)); for m in 0..10 { first.sensors.push(sensor(d*10+m, d, &format!("m{m}"))); } }
        writer.commit(&first, &|_| None).unwrap();
        let mut seed = 12345u64;
        let mut rnd = || { seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17; seed };
        let mut time = 0i64;
        let batches: Vec<Batch> = (0..if sqlite {30} else {100u64}).map(|b| {
            let mut readings = Vec::new();
            for _ in 0..1000 { let d = (rnd() % u64::from(devices)) as u32; time += 100;
                for m in 0..10u32 { readings.push(Reading { sensor: d*10+m, time: at(time), value: 1.5, seq: b + 2 }); } }
            Batch { position: b + 2, generation: 1, messages: 1000, readings, ..Batch::default() }
        }).collect();
        let half = batches.len()/2;
        let started = Instant::now();
        for b in &batches[..half] { writer.commit(b, &|_| None).unwrap(); }
        let mid = started.elapsed();
        for b in &batches[half..] { writer.commit(b, &|_| None).unwrap(); }
        let rest = started.elapsed() - mid;
        eprintln!("sqlite {sqlite} devices {devices}: first half {mid:?}, second half {rest:?} sorted={}", std::env::var_os("UNSORTED").is_none());
    }}
}
