#include "config/field_list.h"

namespace costate::cli {

void regression_fields(FieldList& l, RegressionConfig&) {
  l.section("finetune.regression");
}

}  // namespace costate::cli
