// Whole files in and out, for the data room: see tensor/file.h.
#pragma once
#include <costate/tensor/file.h>

namespace costate::data {

using costate::as_bytes;
using costate::as_text;
using costate::default_max_file;
using costate::read_file;
using costate::write_file_atomically;

}  // namespace costate::data
