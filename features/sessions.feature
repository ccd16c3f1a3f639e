Feature: State that an agent keeps between its jobs
  A session is one sandbox that lives on. It ends once, says why, and no job of it runs anywhere else or twice.

  @T1
  Scenario: An agent works in steps
    Given an open session
    When a job sets a variable and leaves a file
    Then the next job finds both
    And a job without the session finds neither

  @T1
  Scenario: An agent changes its mind in the middle of a run
    Given an open session
    When a job that would run for ever is interrupted
    Then it ends as an exception of its own code
    And the next job finds what was there before

  @T1
  Scenario: One step breaks the sandbox
    Given an open session
    When a job passes its deadline
    Then the session ends as "crashed" and names that job
    And the next job is refused with "session_ended"

  @T1
  Scenario: An agent forgets its session
    Given a session that may rest for one second
    When nobody uses it
    Then the session ends as "idle"

  @T1
  Scenario: A step reads what a program wrote
    Given an open session with documents
    When pandoc converts a file of the session
    Then the next job reads what pandoc wrote
    And a program that the profile does not list is refused
