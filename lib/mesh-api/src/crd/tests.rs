use super::*;
#[test]
fn dump() {
    for crd in crds().iter().chain(&gateway_stand_ins()) {
        println!("{}---", serde_yaml_ng::to_string(crd).unwrap());
    }
}
