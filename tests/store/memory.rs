use std::sync::Arc;

use tidegate::decode::memory::Memory;
use tidegate::store::batch::Batch;

use super::{Site, lookup, on_both};

on_both!(what_decoders_remember_goes_with_the_position);

fn remembered(memory: &mut Memory, key: &str) -> Option<Vec<u8>> {
    memory.of_source(&Arc::from("plant")).get(key).map(<[u8]>::to_vec)
}

fn what_decoders_remember_goes_with_the_position(site: &Site) {
    let (mut writer, _) = site.writer();
    let mut memory = Memory::default();
    let plant = Arc::from("plant");
    let many = |memory: &mut Memory, value: &[u8]| {
        for n in 0..9000 {
            memory.of_source(&plant).put(&format!("alias {n}"), value).unwrap();
        }
    };
    many(&mut memory, &[1, 0, 255]);
    writer.commit(&Batch { position: 5, memory: memory.take_changes(), ..Batch::default() }, &lookup).unwrap();

    many(&mut memory, &[2]);
    memory.of_source(&plant).forget("alias 7");
    let changes = memory.take_changes();
    let lost = Batch { position: 5, memory: changes.clone(), ..Batch::default() };
    writer.commit(&lost, &lookup).unwrap_err();
    let mut kept = site.store.memory("gw").unwrap();
    assert_eq!(remembered(&mut kept, "alias 8999"), Some(vec![1, 0, 255]), "a batch that fails changes nothing");

    writer.commit(&Batch { position: 6, memory: changes, ..Batch::default() }, &lookup).unwrap();
    let mut kept = site.store.memory("gw").unwrap();
    assert_eq!(remembered(&mut kept, "alias 8999"), Some(vec![2]));
    assert_eq!(remembered(&mut kept, "alias 7"), None);
    assert_eq!(remembered(&mut site.store.memory("another").unwrap(), "alias 8"), None);
}
