# cmake --install, find_package(costate) and pkg-config. The installed package names no path of the machine that built it
# and needs nothing but Threads: Eigen is used in .cpp files only, and $<BUILD_INTERFACE:...> keeps it out of the export.
# `cmake --install ... --component NAME` installs a part: library, program, c (the C interface), cuda (the plugin).
if(NOT COSTATE_INSTALL)
  return()
endif()
include(CMakePackageConfigHelpers)
set(COSTATE_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/costate)

# costate_install(TARGET PART COMPONENT): a library, and the export that find_package reads.
function(costate_install target part component)
  install(TARGETS ${target} EXPORT costate-${part}-targets COMPONENT ${component}
          LIBRARY NAMELINK_COMPONENT ${component})
  install(EXPORT costate-${part}-targets NAMESPACE costate:: DESTINATION ${COSTATE_PACKAGE_DIR} COMPONENT ${component})
endfunction()
if(COSTATE_KIND STREQUAL "SHARED_LIBRARY")
  costate_install(costate shared library)
else()
  costate_install(costate static library)
endif()
if(TARGET costate_shared)
  costate_install(costate_shared shared library)
endif()
foreach(folder IN LISTS COSTATE_FOLDERS)
  install(DIRECTORY ${folder}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/costate/${folder} COMPONENT library
          FILES_MATCHING PATTERN "*.h" PATTERN "*.def" PATTERN "cpu" EXCLUDE)
endforeach()

# 0.1.x and 0.2.x may differ in their interface: a consumer who asks for 0.1 is not given 0.2.
configure_package_config_file(cmake/costate-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/costate-config.cmake
                              INSTALL_DESTINATION ${COSTATE_PACKAGE_DIR} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/costate-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/costate-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/costate-config-version.cmake
        DESTINATION ${COSTATE_PACKAGE_DIR} COMPONENT library)

# The prefix of the .pc file is where it lies, so that an installation can be moved.
file(RELATIVE_PATH COSTATE_PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/costate.pc.in ${CMAKE_CURRENT_BINARY_DIR}/costate.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/costate.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT library)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT library)

if(TARGET costate_c)
  if(COSTATE_KIND STREQUAL "SHARED_LIBRARY")  # which is then beside it, not inside
    set_target_properties(costate_c PROPERTIES INSTALL_RPATH "$ORIGIN")
  endif()
  costate_install(costate_c c c)
  install(FILES cli/c/costate.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT c)
  configure_file(cmake/costate_c.pc.in ${CMAKE_CURRENT_BINARY_DIR}/costate_c.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/costate_c.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT c)
endif()
if(TARGET costate-cli)
  file(RELATIVE_PATH library_from_program /prefix/${CMAKE_INSTALL_BINDIR} /prefix/${CMAKE_INSTALL_LIBDIR})
  set_target_properties(costate-cli PROPERTIES INSTALL_RPATH "$ORIGIN/${library_from_program}")
  install(TARGETS costate-cli COMPONENT program)
endif()
