"""
    Tsit5()

Explicit Runge–Kutta pair of order 5(4) with a free interpolant of order 4: six gradients a step, no Hessian.

Ch. Tsitouras, *Runge–Kutta pairs of order 5(4) satisfying only the first column simplifying assumption*,
Computers & Mathematics with Applications 62 (2011) 770–775.
"""
struct Tsit5 <: FlowMethod end

# Rows of A after the first, the last of them the weights of the solution; then solution minus embedded
# solution.
const TSIT5_A = (
    ("0.161",),
    ("-.8480655492356988544426874250230774675121177393430391537369234245294192976164141156943e-2",
     ".3354806554923569885444268742502307746751211773934303915373692342452941929761641411569"),
    ("2.897153057105493432130432594192938764924887287701866490314866693455023795137503079289",
     "-6.359448489975074843148159912383825625952700647415626703305928850207288721235210244366",
     "4.362295432869581411017727318190886861027813359713760212991062156752264926097707165077"),
    ("5.325864828439256604428877920840511317836476253097040101202360397727981648835607691791",
     "-11.74888356406282787774717033978577296188744178259862899288666928009020615663593781589",
     "7.495539342889836208304604784564358155658679161518186721010132816213648793440552049753",
     "-.9249506636175524925650207933207191611349983406029535244034750452930469056411389539635e-1"),
    ("5.861455442946420028659251486982647890394337666164814434818157239052507339770711679748",
     "-12.92096931784710929170611868178335939541780751955743459166312250439928519268343184452",
     "8.159367898576158643180400794539253485181918321135053305748355423955009222648673734986",
     "-.7158497328140099722453054252582973869127213147363544882721139659546372402303777878835e-1",
     "-.2826905039406838290900305721271224146717633626879770007617876201276764571291579142206e-1"),
    (".9646076681806522951816731316512876333711995238157997181903319145764851595234062815396e-1",
     "0.01",
     ".4798896504144995747752495322905965199130404621990332488332634944254542060153074523509",
     "1.379008574103741893192274821856872770756462643091360525934940067397245698027561293331",
     "-3.290069515436080679901047585711363850115683290894936158531296799594813811049925401677",
     "2.324710524099773982415355918398765796109060233222962411944060046314465391054716027841"))
const TSIT5_ERROR = (
    "-1.780011052225771443378550607539534775944678804333659557637450799792588061629796e-03",
    "-8.164344596567469032236360633546862401862537590159047610940604670770447527463931e-04",
    "7.880878010261996010314727672526304238628733777103128603258129604952959142646516e-03",
    "-1.44711007173262907537165147972635116720922712343167677619514233896760819649515e-01",
    "5.823571654525552250199376106520421794260781239567387797673045438803694038950012e-01",
    "-4.580821059291869466616365188325542974428047279788398179474684434732070620889539e-01",
    "0.0151515151515151515151515151515151515151515151515151515151515151515151515151515151515")
# The weights b_i(s) = r_1 s + r_2 s² + r_3 s³ + r_4 s⁴ of the interpolant, r_2 and r_3. r_1 is one for the
# first stage and zero for the others; r_4 follows from b_i(1) being the weight of the solution.
const TSIT5_R2 = (-2.763706197274826, 0.1317, 3.9302962368947516, -12.411077166933676, 37.50931341651104,
                  -27.896526289197286, 1.5)
const TSIT5_R3 = (2.9132554618219126, -0.2234, -5.941033872131505, 30.33818863028232, -88.1789048947664,
                  65.09189467479366, -4.0)

mutable struct Tsit5Cache{T<:AbstractFloat} <: StepCache{T}
    a::Vector{Vector{T}}
    error::Vector{T}
    r::Matrix{T}
    k::Vector{Vector{T}}     # gradients of the stages
    y6::Vector{T}            # the stage next to the solution, for the estimate of stiffness
    curvature::Float64       # the largest seen lately
end

function Tsit5Cache(::Type{T}, n::Int) where {T}
    a = Vector{T}[T[parse(T, s) for s in row] for row in TSIT5_A]
    weights = push!(copy(a[6]), zero(T))
    r = zeros(T, 7, 4)
    for i in 1:7
        r[i, 1] = i == 1
        r[i, 2] = TSIT5_R2[i]
        r[i, 3] = TSIT5_R3[i]
        r[i, 4] = weights[i] - r[i, 1] - r[i, 2] - r[i, 3]
    end
    return Tsit5Cache{T}(a, T[parse(T, s) for s in TSIT5_ERROR], r, Vector{T}[zeros(T, n) for _ in 1:7],
                         zeros(T, n), 0.0)
end

make_cache(::Tsit5, ::Type{T}, n::Int) where {T} = Tsit5Cache(T, n)
method_name(::Tsit5Cache) = "Tsit5"
controller(::Tsit5Cache) = Controller(false, 5)
interpolant_degree(::Tsit5Cache) = 4

# For the step e^z of an unstable direction the method's growth is off by 6.7e-5 z⁵ in its rate (z < 1.5).
# Errors of a component below abstol are not seen by the error norm, yet they decide when a saddle is left.
escape_limit(::Tsit5Cache, reltol::Float64) = clamp((reltol / 6.7e-5)^(1 / 5), 0.05, 1.5)
watch_escape(::Tsit5Cache) = true

function attempt!(cache::Tsit5Cache{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    k, y = cache.k, state.y
    minus_h = -T(min(state.h, Float64(floatmax(T)) / 1e3))
    copyto!(k[1], state.g)
    for stage in 2:6
        target = stage == 6 ? cache.y6 : state.ynew
        combine!(target, y, minus_h, cache.a[stage-1], k, stage - 1)
        gradient_at!(k[stage], problem, target)
    end
    combine!(state.ynew, y, minus_h, cache.a[6], k, 6)
    value_and_gradient_at!(k[7], problem, state.ynew)
    state.lossnew = problem.value[]
    state.gnormnew = problem.gnorm
    state.evaluated = true
    copyto!(state.gnew, k[7])
    fill!(state.err, zero(T))
    for j in 1:7
        add_scaled!(state.err, minus_h * cache.error[j], k[j])
    end
    return true
end

accepted!(::Tsit5Cache) = nothing

# Curvature is measured between the last two stages, which lie at the same time (Hairer and Wanner, Solving
# ODEs II, IV.2). It shows the stiffest direction only while that is excited: hence the memory. The method
# is stable up to 3.5 on the negative axis; there stiff components would hover at the size of the tolerance,
# at 3.0 a step leaves 0.39 of them. That costs a sixth more steps at most.
function measure!(cache::Tsit5Cache{T}, state::FlowState{T}) where {T}
    rise, run = zero(T), zero(T)
    y6, k6, k7, ynew = cache.y6, cache.k[6], cache.k[7], state.ynew
    @inbounds @simd for i in eachindex(y6)
        rise += (k7[i] - k6[i])^2
        run += (ynew[i] - y6[i])^2
    end
    curvature = run > 0 ? sqrt(Float64(rise / run)) : 0.0
    isfinite(curvature) && (cache.curvature = max(curvature, 0.99 * cache.curvature))
    state.stiffness = state.h * cache.curvature
    state.longest = 3.0 / cache.curvature
    return nothing
end

function interpolant!(c::Vector{T}, offset::Int, cache::Tsit5Cache{T}, problem::FlowProblem{T},
                      state::FlowState{T}) where {T}
    n = problem.n
    minus_h = -T(min(state.h, Float64(floatmax(T)) / 1e3))
    copyto!(c, offset + 1, state.y, 1, n)
    for m in 1:4
        at = offset + m * n
        for i in 1:n
            c[at+i] = 0
        end
        for j in 1:7
            weight = minus_h * cache.r[j, m]
            kj = cache.k[j]
            @inbounds @simd for i in 1:n
                c[at+i] += weight * kj[i]
            end
        end
    end
    return nothing
end

register!(FLOW_METHODS, "Tsit5", Tsit5(),
          "explicit Runge–Kutta method of order 5 (Tsitouras 2011)")
