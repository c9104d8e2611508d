#include "config/field_list.h"

namespace costate::cli {

void policy_gradient_fields(FieldList& l, PolicyGradientConfig&) {
  l.section("finetune.policy_gradient");
}

}  // namespace costate::cli
