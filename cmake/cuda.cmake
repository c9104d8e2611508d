# COSTATE_CUDA=AUTO|ON|OFF. The backend itself is not part of this version: AUTO therefore means OFF, and ON is refused
# here, in words, rather than ignored.
if(COSTATE_CUDA STREQUAL "ON")
  message(FATAL_ERROR "COSTATE_CUDA=ON: this version of Costate has no CUDA backend yet; use AUTO or OFF")
elseif(NOT COSTATE_CUDA MATCHES "^(AUTO|OFF)$")
  message(FATAL_ERROR "COSTATE_CUDA is '${COSTATE_CUDA}'; expected AUTO, ON or OFF")
endif()
