# The target `doc`: the reference of the C++ interface, BUILD/api/html/index.html. It is there where Doxygen is.
find_program(COSTATE_DOXYGEN doxygen)
if(COSTATE_DOXYGEN)
  file(CONFIGURE OUTPUT api/Doxyfile CONTENT "@INCLUDE = ${PROJECT_SOURCE_DIR}/docs/api/Doxyfile
OUTPUT_DIRECTORY = \"${CMAKE_CURRENT_BINARY_DIR}/api\"
" @ONLY)
  add_custom_target(doc COMMAND ${COSTATE_DOXYGEN} ${CMAKE_CURRENT_BINARY_DIR}/api/Doxyfile
                    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} VERBATIM)
endif()
