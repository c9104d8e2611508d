# The shared library. Where the static one is built it is linked a second time, from the same objects: an installation has
# both, and a project that finds it chooses (cmake/costate-config.cmake.in).
configure_file(cmake/exports.map.in ${PROJECT_BINARY_DIR}/exports.map @ONLY)

# Hidden visibility by a list at the link: no declaration carries a mark for it.
function(costate_hide library map)
  target_link_options(${library} PRIVATE -Wl,--version-script=${map} -Wl,-Bsymbolic-functions -Wl,--gc-sections)
  set_target_properties(${library} PROPERTIES LINK_DEPENDS ${map})
endfunction()

get_target_property(COSTATE_KIND costate TYPE)
if(COSTATE_KIND STREQUAL "SHARED_LIBRARY")
  set_target_properties(costate PROPERTIES EXPORT_NAME shared)
  costate_hide(costate ${PROJECT_BINARY_DIR}/exports.map)
else()
  set_target_properties(costate PROPERTIES EXPORT_NAME static)
  option(COSTATE_SHARED "The shared library beside the static one" ${PROJECT_IS_TOP_LEVEL})
  if(COSTATE_SHARED)
    add_library(costate_shared SHARED $<TARGET_OBJECTS:costate>)
    foreach(isa IN LISTS isas)
      target_sources(costate_shared PRIVATE $<TARGET_OBJECTS:costate_${isa}>)
    endforeach()
    set_target_properties(costate_shared PROPERTIES OUTPUT_NAME costate EXPORT_NAME shared LINKER_LANGUAGE CXX
                          VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
    target_compile_features(costate_shared PUBLIC cxx_std_20)
    target_include_directories(costate_shared INTERFACE $<BUILD_INTERFACE:${COSTATE_INCLUDE_DIR}>
                                                        $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
    target_link_libraries(costate_shared PUBLIC Threads::Threads PRIVATE ${CMAKE_DL_LIBS})
    costate_flags(costate_shared)
    costate_hide(costate_shared ${PROJECT_BINARY_DIR}/exports.map)
  endif()
endif()
