#include "config/field_list.h"

namespace costate::cli {

void backpropagation_fields(FieldList& l, BackpropagationConfig&) {
  l.section("finetune.backpropagation");
}

}  // namespace costate::cli
